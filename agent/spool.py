"""The spool: received objects on this machine's disk, from the peer's last byte until every destination has them.

    SPOOL/lock             held by the one agent that uses this spool
    SPOOL/incoming/NAME    being received; cleared at start
    SPOOL/ready/NAME       whole and durable; what a scan finds after any crash

NAME is a number that only grows, then random digits: names sort by arrival and never come from a data set. A file
enters `ready/` by rename after its bytes are flushed, and `finish` returns after the folder is flushed too
(`transfer.durable`, many files a flush). Refuses to do: looking into the bytes, choosing destinations.
"""

import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from typing_extensions import Buffer

from agent.lock import open_lock
from transfer import disk, reserve
from transfer.durable import Finished, Volume, make_folder_durably
from transfer.errors import FascicleError, StorageError
from transfer.log import get_logger

log = get_logger()
BUFFER_BYTES: Final = 256 * 1024  # one hop to a thread for each, not one for each PDU
ROOM_CHECK_BYTES: Final = 8 * 1024 * 1024
NAME: Final = re.compile(r"[0-9]{20}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True, order=True)
class SpooledId:
    """One whole object in the spool: its file's name below `ready/`, and its length."""

    name: str
    size_bytes: int


@dataclass(slots=True)
class _Publication:
    """A written file that waits for its group's flush, and what became of it."""

    file: Finished
    published: bool = False
    error: FascicleError | None = None


class Incoming:
    """One object while it arrives. End it with `finish` or `abandon`; after either, `abandon` does nothing."""

    def __init__(self, spool: "Spool", descriptor: int, name: str) -> None:
        self._spool, self._descriptor, self.name = spool, descriptor, name
        self._pending = bytearray()
        self._open = True
        self.size_bytes = 0

    async def write(self, buffer: Buffer) -> None:
        """Append `buffer`, which may be reused when this returns.

        Raises:
            FullError: the disk is full, or free space fell below the reserve.
            StorageError: the disk failed.
        """
        self._pending += buffer
        if len(self._pending) >= BUFFER_BYTES:
            await self._write_pending()

    async def finish(self) -> SpooledId:
        """Make the object durable; a failure abandons it, and is never tried again.

        Raises:
            FullError, StorageError: as `write`.
        """
        try:
            await self._write_pending()
            await self._spool._publish(self._descriptor, self.name)
            spooled = SpooledId(self.name, self.size_bytes)
            self._close()
        except BaseException:
            await self.abandon()
            raise
        self._spool._announce(spooled)
        return spooled

    async def abandon(self) -> None:
        """Forget the object and its bytes."""
        if not self._open:
            return
        self._close()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._spool._discard, self.name)

    async def _write_pending(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, bytearray()
        self.size_bytes = await trio.to_thread.run_sync(self._spool._append, self._descriptor, pending, self.size_bytes)

    def _close(self) -> None:
        self._open = False
        self._pending = bytearray()
        disk.close(self._descriptor)


class Spool:
    """An open spool; made by `open_spool`."""

    def __init__(self, folder: Path, *, reserve_bytes: int) -> None:
        self.folder, self.reserve_bytes = folder, reserve_bytes
        self.incoming, self.ready = folder / "incoming", folder / "ready"
        self._volume = Volume(folder)
        self._waiting: list[_Publication] = []
        self._flushing = trio.Lock()
        self._sequence = 0
        self._unchecked_bytes = 0
        self._finished: list[SpooledId] = []
        self._news = trio.Event()

    async def begin(self, origin: str) -> Incoming:
        """Start to receive one object from `origin` (a peer's name, for the log only).

        Raises:
            FullError: free space is below the reserve.
            StorageError: the disk failed.
        """
        name = self._next_name()
        try:
            descriptor = await trio.to_thread.run_sync(self._create, name)
        except FascicleError as error:
            log.warning("spool_refused", origin=origin, code=error.code, error=error.message)
            raise
        return Incoming(self, descriptor, name)

    async def scan(self) -> list[SpooledId]:
        """Return everything that is whole, in the order of arrival."""
        return await trio.to_thread.run_sync(self._scan)

    async def wait_finished(self) -> list[SpooledId]:
        """Wait until objects were finished since the last call, and return them. For one caller at a time."""
        await self._news.wait()
        finished, self._finished, self._news = self._finished, [], trio.Event()
        return finished

    async def remove(self, names: Iterable[str]) -> None:
        """Let go of objects that every destination has; a name that is gone already is fine."""
        await trio.to_thread.run_sync(self._remove, list(names))

    def path(self, name: str) -> Path:
        """Return where a whole object lies."""
        return self.ready / name

    def _next_name(self) -> str:
        self._sequence = max(self._sequence + 1, time.time_ns())
        return f"{self._sequence:020d}-{secrets.token_hex(6)}"

    def _announce(self, spooled: SpooledId) -> None:
        self._finished.append(spooled)
        self._news.set()

    def _prepare(self) -> None:
        """Clear what was half received, and go on counting after the newest name."""
        for folder in (self.incoming, self.ready):
            make_folder_durably(folder)
        self._volume.flush_everything()  # who made the folders above, or renamed, may have been killed before the flush
        for left in disk.entries(str(self.incoming)):
            disk.unlink(left.path)
        self._sequence = max((int(spooled.name[:20]) for spooled in self._scan()), default=0)

    def _scan(self) -> list[SpooledId]:
        found = []
        for entry in disk.entries(str(self.ready)):
            with contextlib.suppress(FileNotFoundError):  # let go of meanwhile
                if NAME.match(entry.name):
                    found.append(SpooledId(entry.name, entry.stat(follow_symlinks=False).st_size))
        return found

    def _create(self, name: str) -> int:
        self._check_room()
        return disk.create(str(self.incoming / name))

    def _append(self, descriptor: int, data: Buffer, offset: int) -> int:
        behind = disk.write_at(descriptor, [data], offset)
        self._unchecked_bytes += behind - offset
        if self._unchecked_bytes >= ROOM_CHECK_BYTES:
            self._unchecked_bytes = 0
            self._check_room()
        return behind

    def _check_room(self) -> None:
        reserve.require(str(self.folder), self.reserve_bytes, "spool")

    async def _publish(self, descriptor: int, name: str) -> None:
        """Join the next group flush; whoever comes first while none runs leads it for all that wait."""
        file = Finished(descriptor, str(self.incoming / name), str(self.ready / name), opened_early=True)
        mine = _Publication(file)
        self._waiting.append(mine)
        with trio.CancelScope(shield=True):  # the leader needs everyone's descriptors open
            async with self._flushing:
                if not mine.published and mine.error is None:
                    group, self._waiting = self._waiting, []
                    await trio.to_thread.run_sync(self._publish_group, group)
        if mine.error is not None:
            raise type(mine.error)(mine.error.message) from mine.error
        if not mine.published:
            raise StorageError("spool: the flush of this object's group was broken off")

    def _publish_group(self, waiting: list[_Publication]) -> None:
        try:
            with self._volume.open_group() as group:
                group.publish([each.file for each in waiting])
        except FascicleError as error:
            for each in waiting:
                each.error = error
        else:
            for each in waiting:
                each.published = True

    def _discard(self, name: str) -> None:
        for folder in (self.incoming, self.ready):
            disk.unlink(str(folder / name))

    def _remove(self, names: list[str]) -> None:
        for name in names:
            disk.unlink(str(self.path(name)))


@contextlib.asynccontextmanager
async def open_spool(folder: Path, *, reserve_bytes: int) -> AsyncIterator[Spool]:
    """Take the spool in `folder`: make it, lock it, clear what was half received.

    Raises:
        SettingsError: another process uses it, or the folder cannot be made.
        StorageError: the disk failed.
    """
    with open_lock(folder):
        spool = Spool(folder, reserve_bytes=reserve_bytes)
        await trio.to_thread.run_sync(spool._prepare)
        yield spool
