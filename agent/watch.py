"""Watches one folder: a file that has stopped changing is put into the queue, once for each state that it is in.

Polls, because network shares tell nothing of what other machines write. Each round passes over what is queued or
kept already, and holds at most `PENDING_MAX` files that still have to settle. Trouble is told once in the log, and
in the status for as long as it lasts. Refuses to do: deleting, moving (`agent.after`), judging contents.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import trio

from agent.items import File, NewItem, Priority, mark_of
from agent.queue import Queue
from agent.walk import Pending, readable, settle, walk
from transfer import names
from transfer.log import get_logger

log = get_logger()
CHUNK: Final = 500
PENDING_MAX: Final = 20_000
TROUBLES_MAX: Final = 1000
REST_RATIO: Final = 4  # rests at least this many times as long as a round took: polling costs a fifth of a core at most


@dataclass(frozen=True, slots=True)
class WatchStatistics:
    """What a watcher sees: files that still have to settle, and what cannot be taken (path, reason)."""

    folder: str
    settling: int
    taken: int
    troubles: list[tuple[str, str]]


class Watcher:
    """Watches `folder` for files that go to `destinations`."""

    def __init__(
        self,
        folder: str,
        queue: Queue,
        *,
        destinations: Sequence[str],
        priority: Priority = Priority.NORMAL,
        settle_s: float = 2.0,
        ignore: Sequence[str] = (),
    ) -> None:
        self.folder, self._root = folder, os.fsencode(folder)
        self._queue, self._destinations, self._priority = queue, destinations, priority
        self._settle_s, self._ignore = settle_s, ignore
        self._pending: dict[bytes, Pending] = {}
        self._troubles: dict[bytes, str] = {}
        self._noted: dict[bytes, str] = {}
        self._taken = 0

    async def serve(self) -> None:
        """Look again and again."""
        await self.prune()
        while True:
            began_s = trio.current_time()
            await self.look()
            spent_s = trio.current_time() - began_s
            await trio.sleep(max(0.1, self._settle_s / 2, spent_s * REST_RATIO))

    async def look(self) -> int:
        """Go through the folder once; returns how many files were queued."""
        self._noted = {}
        now_s = trio.current_time()
        found = await self._new_files()
        settled, self._pending = settle(self._pending, found, now_s, self._settle_s)
        added = 0
        for chunk in _chunks(settled):
            usable = await trio.to_thread.run_sync(readable, chunk, self._trouble)
            added += await self._queue.add([self._item(file) for file in usable])
        self._taken += added
        self._troubles = self._noted
        return added

    async def prune(self) -> int:
        """Forget kept files that are gone, so that the memory of them does not grow for ever; returns how many.

        An empty or missing folder is taken for one that is not mounted: nothing is forgotten.
        """
        if await trio.to_thread.run_sync(_is_bare, self._root):
            return 0
        forgotten, last = 0, b""
        while kept := await self._queue.kept_after(self.folder, last, CHUNK):
            last = kept[-1]
            gone = await trio.to_thread.run_sync(_gone, kept)
            forgotten += len(gone)
            await self._queue.forget_kept(self.folder, gone)
        return forgotten

    def statistics(self) -> WatchStatistics:
        """Return what is settling, how many were taken since start, and what cannot be taken."""
        troubles = [(os.fsdecode(path), reason) for path, reason in sorted(self._troubles.items())]
        return WatchStatistics(self.folder, len(self._pending), self._taken, troubles)

    async def _new_files(self) -> list[File]:
        walking = walk(self._root, self._ignore, self._trouble)
        found: list[File] = []
        while chunk := await trio.to_thread.run_sync(_next_chunk, walking):
            found += await self._queue.unknown(self.folder, chunk)
            if len(found) >= PENDING_MAX:  # what can never be taken must not keep out what comes behind it
                found = await trio.to_thread.run_sync(readable, found, self._trouble)
                if len(found) > PENDING_MAX // 2:
                    break
        return found

    def _trouble(self, path: bytes, reason: str) -> None:
        if len(self._noted) >= TROUBLES_MAX:
            return
        self._noted[path] = reason
        if self._troubles.get(path) != reason:
            log.warning("watch_trouble", folder=self.folder, file=mark_of(path), reason=reason)

    def _item(self, file: File) -> NewItem:
        name = names.usable(PurePath(os.fsdecode(os.path.relpath(file.path, self._root))))
        return NewItem(self.folder, file, name, self._priority, self._destinations)


def _is_bare(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _gone(paths: Sequence[bytes]) -> list[bytes]:
    return [path for path in paths if not os.path.lexists(path)]


def _next_chunk(walking: Iterator[File]) -> list[File]:
    return list(itertools.islice(walking, CHUNK))


def _chunks(files: list[File]) -> Iterator[list[File]]:
    return (files[at : at + CHUNK] for at in range(0, len(files), CHUNK))
