"""`fascicle get`: fetches originals, bit for bit, into a folder, under the names that they were sent with.

An object without a name, or whose name another object has taken, is called by its object id. Refuses to do: believing
names (each is checked before it becomes a path), believing nodes (each object is proved by its id).
"""

import errno
import os
import shutil
import ssl
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec
import trio
from typing_extensions import Buffer

from agent.progress import Progress, Snapshot, open_progress, size_text
from transfer import credentials as credentials_file
from transfer import names
from transfer.api import StoredObject
from transfer.client import GatewayClient
from transfer.decoders.pool import open_decoders
from transfer.encoders import default_workers
from transfer.encodings import OpenDecoder
from transfer.errors import FascicleError, FullError, NotStoredError, ProtocolError, SettingsError, StorageError
from transfer.printable import printable
from transfer.reader import fetch
from transfer.tls import client_context

PATIENCE_S: Final = 30.0
PROGRESS_S: Final = 0.25
NAME_ERRORS: Final = (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # cost the name
PART_NAME_LONGEST: Final = "." + "x" * 40 + ".part"  # where the file is while it comes
PAGE_OBJECTS: Final = 2000  # with one ticket; a large archive takes many


def run(
    *,
    out: Path,
    credentials: Path,
    study: str | None = None,
    series: str | None = None,
    object_id: str | None = None,
    everything: bool = False,
    as_json: bool = False,
) -> int:
    """Fetch what is asked for into `out` and return the exit code: 0 all, 1 some objects could not be had.

    Raises:
        NotStoredError: nothing fits.
        FascicleError: the gateway does not answer, or this disk failed.
    """
    wanted = {"study": study, "series": series, "object_id": object_id}
    if not everything and not any(wanted.values()):
        raise SettingsError("say what to get: --study, --series, --object or --all")
    with (
        open_decoders(default_workers()) as decoders,
        open_progress(as_json=as_json, stream=sys.stderr) as progress,
    ):
        command = _Get(out, decoders.open_decoder)
        summary = trio.run(command.run, credentials, wanted, progress)
    if as_json:
        print(msgspec.json.encode(summary).decode())
    else:
        _print_summary(summary)
    return 1 if summary["failed"] else 0


class _Get:
    def __init__(self, out: Path, open_decoder: OpenDecoder) -> None:
        self._open_decoder = open_decoder
        self._folder = OutFolder(out)
        self._objects = 0
        self._bytes = 0
        self._failures: list[dict[str, str]] = []

    async def run(self, credentials: Path, wanted: dict[str, str | None], progress: Progress) -> dict[str, Any]:
        loaded = credentials_file.load(credentials)
        context = client_context(loaded)
        started_s = time.monotonic()
        async with GatewayClient(loaded, patience_s=PATIENCE_S) as client, trio.open_nursery() as nursery:
            nursery.start_soon(self._show, progress, started_s)
            page: list[StoredObject] = []
            async for stored in client.iterate_objects(**wanted):
                page.append(stored)
                if len(page) == PAGE_OBJECTS:
                    await self._fetch(client, page, context)
                    page = []
            await self._fetch(client, page, context)
            nursery.cancel_scope.cancel()
        if not self._objects and not self._failures:
            raise NotStoredError("nothing that is stored fits; see what there is with `fascicle status`")
        seconds = time.monotonic() - started_s
        return {
            "objects": self._objects,
            "bytes": self._bytes,
            "failed": len(self._failures),
            "seconds": round(seconds, 4),
            "failures": self._failures,
        }

    async def _fetch(self, client: GatewayClient, page: Sequence[StoredObject], context: ssl.SSLContext) -> None:
        if page:
            go = await client.open_read(["get"])
            await fetch(
                page,
                go,
                context=context,
                open_sink=self._folder.open,
                on_done=self._done,
                open_decoder=self._open_decoder,
                renew=partial(client.open_read, ["get"]),
            )

    def _done(self, stored: StoredObject, error: FascicleError | None) -> None:
        if error is not None:
            self._failures.append({"object": stored.object_id, "code": error.code, "reason": error.message})
            return
        self._objects += 1
        self._bytes += stored.size_bytes

    async def _show(self, progress: Progress, started_s: float) -> None:
        while True:
            elapsed_s = time.monotonic() - started_s
            progress.update(
                Snapshot(
                    elapsed_s=elapsed_s,
                    objects_done=self._objects,
                    objects_failed=len(self._failures),
                    bytes_done=self._bytes,
                    rate_now_bytes_s=self._bytes / max(elapsed_s, 1e-3),
                )
            )
            await trio.sleep(PROGRESS_S)


class OutFolder:
    """Where originals are put; remembers which name is whose."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._claiming = Lock()  # objects of several nodes come at once, each in a thread
        self._taken: dict[Path, str] = {}

    def open(self, stored: StoredObject) -> "FileSink":
        """Return where an object's bytes go (blocks)."""
        with self._claiming:
            paths = self._paths(stored)
        return FileSink(paths)

    def _paths(self, stored: StoredObject) -> list[Path]:
        """Return one path for each of the object's names, at least one."""
        wished = [path for name in stored.names if (path := self._path(name)) is not None]
        paths = [path for path in dict.fromkeys(wished) if self._claim(path, stored.object_id)]
        return paths or [self._by_id(stored.object_id)]

    def _by_id(self, object_id: str) -> Path:
        """Take a path made of the object id; another object's name may look like it."""
        paths = (self._root / f"{object_id}{suffix}.dcm" for suffix in ("", *(f".{n}" for n in range(1, 1000))))
        for path in paths:
            if self._claim(path, object_id):
                return path
        raise StorageError(f"{self._root}: every name of {object_id} is taken")

    def _path(self, name: str) -> Path | None:
        try:
            return self._root / names.to_path(name)
        except ProtocolError:  # a gateway's bad name costs the name, not the image
            return None

    def _claim(self, path: Path, object_id: str) -> bool:
        """Take a path unless another object has it, or one of its folders is another object's file."""
        above = [parent for parent in path.parents if parent != self._root and self._root in parent.parents]
        if self._taken.get(path, object_id) != object_id or any(parent in self._taken for parent in above):
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.with_name(PART_NAME_LONGEST).is_dir() or path.is_dir():
                return False
        except OSError as error:
            if error.errno in NAME_ERRORS:
                return False
            raise StorageError(f"{path.parent}: cannot make the folder: {error.strerror}") from error
        self._taken[path] = object_id
        return True


class FileSink:
    """Writes an object beside its final name, and gives it that name when it is proved."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._part = paths[0].parent / f".{os.getpid()}-{id(self):x}.part"
        try:
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb", buffering=0)
        except OSError as error:
            raise _disk_error(self._part, error) from error

    def write(self, block: Buffer) -> None:
        """See `transfer.reader.Sink`."""
        try:
            view = memoryview(block).cast("B")
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _disk_error(self._part, error) from error

    def finish(self) -> None:
        """See `transfer.reader.Sink`; further names of the same object are copies."""
        try:
            self._file.close()
            for path in self._paths[1:]:
                self._copy(path)
            self._part.replace(self._paths[0])
        except OSError as error:
            raise _disk_error(self._paths[0], error) from error

    def _copy(self, path: Path) -> None:
        """Make one more file, which has its name only when it is whole."""
        part = path.with_name(f"{self._part.stem}.copy.part")
        try:
            shutil.copyfile(self._part, part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def abandon(self) -> None:
        """See `transfer.reader.Sink`."""
        try:
            self._file.close()
            self._part.unlink(missing_ok=True)
        except OSError as error:
            raise _disk_error(self._part, error) from error


def _disk_error(path: Path, error: OSError) -> FascicleError:
    kind = FullError if error.errno == errno.ENOSPC else StorageError
    return kind(f"{path}: cannot be written: {error.strerror}")


def _print_summary(summary: dict[str, Any]) -> None:
    rate = summary["bytes"] / max(summary["seconds"], 1e-9)
    print(
        f"{summary['objects']} objects, {size_text(summary['bytes'])} in {summary['seconds']:.2f} s "
        f"({size_text(rate)}/s), {summary['failed']} failed"
    )
    for failure in summary["failures"]:
        print(f"failed: {failure['object']}: {printable(failure['reason'])}", file=sys.stderr)
