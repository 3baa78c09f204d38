"""How many objects and bytes a store holds: counted once in the background after the start, then kept up to date.

A node serves while it counts, so that a restart takes no longer with millions of objects. An object that is stored or
quarantined meanwhile is counted by that event alone. Thread-safe. Refuses to do: reading files; names and lengths do.
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
log = get_logger()


class Census:
    """The counts of the objects under `folder`, laid out as ab/cd/<object id>, and of files in quarantine."""

    def __init__(self, folder: str, quarantined: int = 0) -> None:
        self.quarantined = quarantined
        self.objects = 0
        self.stored_bytes = 0  # without headers
        self._folder = folder
        self._lock = Lock()
        self._changed: set[str] = set()  # ids stored or quarantined while counting
        self._counted_to = ""  # the last folder counted, as "abcd"
        self._stopped = False
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
        self._stopped = True
        self._thread.join()

    def announce(self, object_id: str) -> None:
        """Tell that a name is about to appear; before it does."""
        with self._lock:
            if not self.complete:
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
            counted = self.complete or object_id in self._changed or object_id[:4] <= self._counted_to
            if not self.complete:
                self._changed.add(object_id)
            if counted:
                self.objects -= 1
                self.stored_bytes -= stored_bytes

    def _count(self) -> None:
        try:
            for first in self._levels(self._folder):
                for second in self._levels(first.path):
                    self._count_folder(first.name + second.name, second.path)
                    if self._stopped:
                        return
        except FascicleError as error:
            log.exception("census_failed", code=error.code)
            return
        with self._lock:
            self._changed.clear()
            self._done.set()

    def _levels(self, path: str) -> list[os.DirEntry[str]]:
        return [entry for entry in disk.entries(path) if LEVEL.match(entry.name)]

    def _count_folder(self, prefix: str, path: str) -> None:
        lengths = disk.lengths(path)
        with self._lock:
            for name, length in lengths.items():
                if name not in self._changed and is_object_id(name):
                    self.objects += 1
                    self.stored_bytes += max(0, length - HEADER_BYTES)
            self._counted_to = prefix
