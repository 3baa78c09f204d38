"""What was put aside: objects that are needed here no more, kept whole for a time, so that a mistake can be undone.

    trash/<object id>.<reason>.<due>.<number>      the object's file under another name; `due`: when it may go,
                                                   in seconds of the node's running time (`nodes.uptime`)

An object is put aside by one durable rename. It comes back by another, after its bytes were read again. It goes for
good when its time has passed *and* the gateway says so once more. One that waits to be announced (`nodes.announce`) is
somebody's, though the gateway cannot know: it stays. Everything blocks; thread-safe. Refuses to do:
deciding what goes (the gateway does, `gateway.discards`).
"""

import re
from collections.abc import Sequence
from threading import Lock
from typing import Final, NamedTuple, cast

from nodes.announce import ANNOUNCEMENTS
from nodes.objectfile import HEADER_BYTES, Record
from nodes.store import Store
from nodes.uptime import Uptime
from transfer import disk
from transfer.errors import ConflictError, FascicleError, NotStoredError, StorageError
from transfer.log import get_logger
from transfer.protocol.messages import Reason

NAME: Final = re.compile(r"([0-9a-f]{64})\.(orphan|extra)\.([0-9]{1,12})\.[0-9]{1,6}\Z")
log = get_logger()
Outcomes = dict[str, Record | FascicleError]


class Entry(NamedTuple):
    """One file that was put aside."""

    object_id: str
    reason: Reason
    due_s: int
    path: str


class Trash:
    """What was put aside of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = str(store.folder / "trash")
        self._announcements = str(store.folder / ANNOUNCEMENTS)
        self._changing = Lock()
        self.uptime = Uptime(store.folder / "uptime")

    def discard(self, object_ids: Sequence[str], reason: Reason, keep_s: int) -> dict[str, FascicleError]:
        """Put objects aside for `keep_s` seconds at least; return why what could not be put aside was not."""
        failed: dict[str, FascicleError] = {}
        due_s = self.uptime.now_s() + keep_s
        with self._changing:
            for object_id in object_ids:
                try:
                    self._require_announced(object_id)
                    self._store.set_aside(object_id, self._free_name(f"{object_id}.{reason}.{due_s}"))
                except FascicleError as error:
                    failed[object_id] = error
        log.info("objects_put_aside", objects=len(object_ids) - len(failed), reason=reason, keep_s=keep_s)
        return failed

    def restore(self, object_ids: Sequence[str]) -> Outcomes:
        """Return what is in its place now of each of the objects, those that were put aside put back; or why not."""
        with self._changing:
            found = self._by_id(object_ids)
            return {object_id: self._restore(object_id, found.get(object_id, [])) for object_id in object_ids}

    def purge(self, object_ids: Sequence[str], *, at_once: bool) -> dict[str, FascicleError]:
        """Delete what was put aside of these objects and is due (`at_once`: all); return why others are left.

        What is in its place is not touched, whatever the trash has of it.
        """
        failed: dict[str, FascicleError] = {}
        with self._changing:
            found = self._by_id(object_ids)
            for object_id in object_ids:
                try:
                    self._purge(found.get(object_id, []), at_once=at_once)
                except FascicleError as error:
                    failed[object_id] = error
            if found:
                disk.flush_folder(self._folder)
        log.info("objects_purged", objects=len(object_ids) - len(failed), at_once=at_once)
        return failed

    def entries(self, after: str = "", count: int | None = None) -> tuple[list[Entry], bool]:
        """Return the last to be due of each of the next objects above `after`, by id, and whether these are all."""
        last: dict[str, Entry] = {}
        for entry in self._read():
            if entry.object_id > after and entry.due_s >= last.get(entry.object_id, entry).due_s:
                last[entry.object_id] = entry
        found = [last[object_id] for object_id in sorted(last)]
        return found[:count], count is None or len(found) <= count

    def stored_bytes(self, entry: Entry) -> int:
        """Return the length of what is stored in it; 0 when it has gone, or the disk will not open it."""
        try:
            descriptor = disk.open_to_read(entry.path)
        except (NotStoredError, StorageError):
            return 0
        try:
            return max(0, disk.size_of(descriptor) - HEADER_BYTES)
        finally:
            disk.close(descriptor)

    def _require_announced(self, object_id: str) -> None:
        """Check that nobody was answered for the object of whom the gateway has yet to hear.

        Raises:
            ConflictError: somebody was.
        """
        if disk.exists(f"{self._announcements}/{object_id}"):
            raise ConflictError(f"{object_id} waits to be announced")

    def _restore(self, object_id: str, entries: list[Entry]) -> Record | FascicleError:
        problem: FascicleError = NotStoredError(f"{object_id} is neither in its place nor put aside here")
        try:
            return self._store.check_durable(object_id, deep=True)
        except FascicleError as error:
            problem = error
        for entry in entries:
            try:
                record = self._store.take_back(object_id, entry.path)
            except FascicleError as error:
                problem = error
            else:
                log.info("object_put_back", object_id=object_id)
                return record
        return problem

    def _purge(self, entries: list[Entry], *, at_once: bool) -> None:
        """Delete the due ones.

        Raises:
            ConflictError: one is left that is not due.
            StorageError: the disk failed.
        """
        now_s = self.uptime.now_s()
        waits_s = max((entry.due_s - now_s for entry in entries), default=0)
        for entry in entries:
            if at_once or entry.due_s <= now_s:
                disk.unlink(entry.path)
        if waits_s > 0 and not at_once:
            raise ConflictError(f"{entries[0].object_id} may go in {waits_s} s of running time")

    def _by_id(self, object_ids: Sequence[str]) -> dict[str, list[Entry]]:
        wanted = set(object_ids)
        found: dict[str, list[Entry]] = {}
        for entry in self._read():
            if entry.object_id in wanted:
                found.setdefault(entry.object_id, []).append(entry)
        return found

    def _read(self) -> list[Entry]:
        matches = [(NAME.match(entry.name), entry.path) for entry in disk.entries(self._folder)]
        return [Entry(m[1], cast(Reason, m[2]), int(m[3]), path) for m, path in matches if m is not None]

    def _free_name(self, start: str) -> str:
        number = 0
        while disk.exists(path := f"{self._folder}/{start}.{number}"):
            number += 1
        return path
