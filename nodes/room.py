"""The room on a node's disk: what is free, less the reserve, less what uploads in progress were promised.

Thread-safe. Refuses to do: making room; only the scrubber deletes objects.
"""

from threading import Lock

from transfer import disk
from transfer.errors import FullError


class Room:
    """Promises of room on the file system of `folder`, of which `reserve_bytes` stay free."""

    def __init__(self, folder: str, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._promised_bytes = 0
        self._lock = Lock()

    def free_bytes(self) -> int:
        """Return what may still be promised."""
        return max(0, disk.free_bytes(self._folder) - self._reserve_bytes - self._promised_bytes)

    def promise(self, length: int) -> None:
        """Keep room for `length` bytes.

        Raises:
            FullError: there is not so much.
        """
        with self._lock:
            free = self.free_bytes()
            if length > free:
                raise FullError(f"no room for {length} bytes here: {free} are free above the reserve")
            self._promised_bytes += length

    def give_back(self, length: int) -> None:
        """End a promise, or the part of it that has become file."""
        with self._lock:
            self._promised_bytes -= length
