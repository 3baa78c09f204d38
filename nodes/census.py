"""How many objects and bytes a store holds: counted once in the background after the start, then kept up to date.

A node serves while it counts, so that a restart takes no longer with millions of objects. An object that is stored or
quarantined meanwhile is counted by that event alone. A folder that cannot be read is left for the next round, and the
others are counted. Thread-safe. Refuses to do: reading files; names and lengths do.
"""

import os
import re
from threading import Event, Lock, Thread
from typing import Final

from nodes.objectfile import HEADER_BYTES
from transfer import disk
from transfer.errors import FascicleError
from transfer.log import get_logger
from transfer.objects import is_object_id

LEVEL: Final = re.compile(r"[0-9a-f]{2}\Z")
AGAIN_S: Final = 60.0  # before folders that could not be read are tried again
log = get_logger()


class Census:
    """The counts of the objects under `folder`, laid out as ab/cd/<object id>, and of files in quarantine."""

    def __init__(self, folder: str, quarantined: int = 0) -> None:
        self.quarantined = quarantined
        self.objects = 0
        self.stored_bytes = 0  # without headers
        self._folder = folder
        self._lock = Lock()
        self._changed: set[str] = set()  # ids stored or quarantined before their folder was counted
        self._counted = bytearray(1 << 16)  # for each folder, by its four digits, whether it was
        self._stopped = Event()
        self._done = Event()
        self._thread = Thread(target=self._count, name="census", daemon=True)
        self._thread.start()

    @property
    def complete(self) -> bool:
        """Whether everything has been counted."""
        return self._done.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until everything has been counted."""
        return self._done.wait(timeout_s)

    def close(self) -> None:
        """Stop counting."""
        self._stopped.set()
        self._thread.join()

    def announce(self, object_id: str) -> None:
        """Tell that a name is about to appear; before it does."""
        with self._lock:
            if not self._is_counted(object_id):
                self._changed.add(object_id)

    def add(self, object_id: str, stored_bytes: int) -> None:
        """Count an announced object that is stored now."""
        with self._lock:
            self.objects += 1
            self.stored_bytes += stored_bytes

    def remove(self, object_id: str, stored_bytes: int, *, quarantined: bool = True) -> None:
        """Count off an object that is in quarantine now, or was put aside."""
        with self._lock:
            self.quarantined += quarantined
            if self._is_counted(object_id) or object_id in self._changed:
                self.objects -= 1
                self.stored_bytes -= stored_bytes
            else:
                self._changed.add(object_id)

    def _is_counted(self, object_id: str) -> bool:
        return self.complete or bool(self._counted[int(object_id[:4], 16)])

    def _count(self) -> None:
        while trouble := self._count_rest():
            log.error("census_waits", folders=len(trouble), code=trouble[0].code, reason=trouble[0].message)
            if self._stopped.wait(AGAIN_S):
                return
        if self._stopped.is_set():
            return
        with self._lock:
            self._changed.clear()
            self._done.set()

    def _count_rest(self) -> list[FascicleError]:
        """Count the folders that have not been; return why some could not be."""
        trouble: list[FascicleError] = []
        for first in self._levels(self._folder, trouble):
            for second in self._levels(first.path, trouble):
                prefix = first.name + second.name
                if self._stopped.is_set():
                    return trouble
                if not self._is_counted(prefix):
                    self._count_folder(prefix, second.path, trouble)
        return trouble

    def _levels(self, path: str, trouble: list[FascicleError]) -> list[os.DirEntry[str]]:
        try:
            return [entry for entry in disk.entries(path) if LEVEL.match(entry.name)]
        except FascicleError as error:
            trouble.append(error)
            return []

    def _count_folder(self, prefix: str, path: str, trouble: list[FascicleError]) -> None:
        try:
            lengths = disk.lengths(path)
        except FascicleError as error:
            trouble.append(error)
            return
        with self._lock:
            for name, length in lengths.items():
                if name not in self._changed and is_object_id(name):
                    self.objects += 1
                    self.stored_bytes += max(0, length - HEADER_BYTES)
            self._counted[int(prefix, 16)] = True
