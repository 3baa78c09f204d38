"""Announcements: how the gateway learns of objects that came without it, by the paper's own protocol.

Each is first a file of its own, made durable before the paper's client is answered, and removed when the gateway has
taken it: a crash or an absent gateway delays it and loses nothing. Refuses to do: any part in ordinary transfers.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final, Never

import httpx
import msgspec
import trio

from nodes.objectfile import Record
from transfer import durable, names, tls
from transfer.api import Announcement, Named, SignedReceipts
from transfer.errors import ConflictError, FascicleError, StorageError, UnreachableError
from transfer.log import get_logger
from transfer.objects import is_object_id
from transfer.protocol.messages import UNREADABLE, Stored

ANNOUNCEMENTS: Final = "announcements"  # the folder, in that of the store
RETRY_S: Final = 5.0
BATCH_MAX: Final = 256
log = get_logger()


class Waiting(msgspec.Struct, frozen=True):
    """One announcement on disk."""

    record: Record
    name: str


class Announcer:
    """Keeps announcements until the gateway has them."""

    def __init__(self, folder: Path, *, gateway: str, identity: Path, sign: Callable[[list[Record]], Stored]) -> None:
        self._folder = folder
        self._gateway = gateway
        self.context: ssl.SSLContext = tls.client_context(identity)
        self._sign = sign
        self._wake = trio.Event()
        durable.make_folder_durably(folder)

    async def announce(self, record: Record, name: str) -> None:
        """Make an announcement durable; it reaches the gateway later."""
        waiting = msgspec.msgpack.encode(Waiting(record, _usable(name)))
        await trio.to_thread.run_sync(durable.write_file_durably, self._folder / record.object_id, waiting)
        self._wake.set()

    async def serve(self) -> Never:
        """Pass announcements on for ever; an absent gateway is asked again."""
        async with httpx.AsyncClient(verify=self.context, base_url=self._gateway, trust_env=False) as client:
            while True:
                self._wake = trio.Event()
                try:
                    await self._pass_on(client)
                except FascicleError as error:
                    log.warning("announcement_waits", code=error.code, reason=error.message)
                    with trio.move_on_after(RETRY_S):
                        await self._wake.wait()
                else:
                    await self._wake.wait()

    async def _pass_on(self, client: httpx.AsyncClient) -> None:
        """Announce all that waits; what the gateway does not take keeps nothing else back.

        Raises:
            FascicleError: the gateway is away, or did not take all.
        """
        left: dict[Path, FascicleError] = {}
        while found := await trio.to_thread.run_sync(_load, self._folder, left):
            before = len(left)
            try:
                await self._announce(client, found)
            except ConflictError as error:
                left |= dict.fromkeys(found, error) if len(found) == 1 else await self._announce_each(client, found)
            if taken := len(found) - len(left) + before:
                log.info("objects_announced", objects=taken)
        if left:
            raise next(iter(left.values()))

    async def _announce_each(
        self, client: httpx.AsyncClient, found: Mapping[Path, Waiting]
    ) -> dict[Path, ConflictError]:
        """Announce one at a time; return which the gateway does not take, and why."""
        refused: dict[Path, ConflictError] = {}
        for path, item in found.items():
            try:
                await self._announce(client, {path: item})
            except ConflictError as error:
                refused[path] = error
        return refused

    async def _announce(self, client: httpx.AsyncClient, found: Mapping[Path, Waiting]) -> None:
        await self._post(client, list(found.values()))
        await trio.to_thread.run_sync(_remove, list(found))

    async def _post(self, client: httpx.AsyncClient, waiting: list[Waiting]) -> None:
        stored = self._sign([item.record for item in waiting])
        body = Announcement(
            receipts=[SignedReceipts(batch=stored.batch, signature=stored.signature)],
            names=[Named(object_id=item.record.object_id, name=item.name) for item in waiting],
        )
        try:
            answer = await client.post("/api/v1/announcements", content=msgspec.json.encode(body))
        except httpx.HTTPError as error:
            raise UnreachableError(f"the gateway does not answer: {error}") from error
        if answer.status_code == ConflictError.http_status:
            raise ConflictError(f"the gateway does not take an announcement: {answer.text[:200]}")
        if answer.status_code >= 300:
            raise UnreachableError(f"the gateway answered {answer.status_code}: {answer.text[:200]}")


def _load(folder: Path, left: dict[Path, FascicleError]) -> dict[Path, Waiting]:
    """Return the first announcements that wait, without those that are `left`; what cannot be read now is left, too.

    Raises:
        StorageError: the folder cannot be read.
    """
    found: dict[Path, Waiting] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if is_object_id(path.name) and path not in left)
    except OSError as error:
        raise StorageError(f"{folder}: announcements cannot be read: {error.strerror}") from error
    for path in paths:
        try:
            if len(found) < BATCH_MAX and (waiting := _read(path)) is not None:
                found[path] = waiting
        except OSError as error:  # of this one alone: the others are somebody's, too
            left[path] = StorageError(f"{path}: an announcement cannot be read: {error.strerror}")
    return found


def _remove(paths: Sequence[Path]) -> None:
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise StorageError(f"{error.filename}: an announcement cannot be removed: {error.strerror}") from error


def _read(path: Path) -> Waiting | None:
    """Return an announcement; a damaged one is set aside for the operator and must not stop the node: None."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Waiting)
    except UNREADABLE as error:
        path.rename(path.with_suffix(".damaged"))
        log.error("announcement_damaged", object_id=path.name, reason=str(error))
        return None


def _usable(name: str) -> str:
    """Return the paper client's file name as a name, or "" when it is not a plain relative path."""
    try:
        usable = names.from_path(PurePath(name))
        names.check(usable)
    except FascicleError:
        return ""
    return usable
