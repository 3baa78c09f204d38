"""What a transfer's link takes, as measured of late. Pure.

Only what flows that were kept busy moved says how fast the link is; of flows that waited for something else it says at
least how fast. Refuses to do: measuring.
"""

from typing import Final

UNKNOWN_BYTES_S: Final = 12.5e6  # 100 Mb/s, before anything is known
SMOOTH: Final = 0.3


class Link:
    """Goodput on the wire; `remembered_bytes_s`: what the path took last time, 0.0 when it is new."""

    def __init__(self, remembered_bytes_s: float = 0.0) -> None:
        self.bytes_s = remembered_bytes_s or UNKNOWN_BYTES_S
        self._remembered = remembered_bytes_s > 0
        self._best_bytes_s = 0.0
        self._is_measured = False

    def take(self, bytes_s: float, *, busy: bool) -> None:
        """Take in one sample; `busy`: the flows had something under way most of the time."""
        if bytes_s <= self.bytes_s and not busy:
            return
        if not self._is_measured and self._best_bytes_s < bytes_s < self.bytes_s:
            self._best_bytes_s = bytes_s  # flows are still speeding up: that says nothing yet
            return
        if not self._is_measured and not self._remembered:
            self.bytes_s = max(bytes_s, self._best_bytes_s)
        self._is_measured = True
        self.bytes_s += SMOOTH * (bytes_s - self.bytes_s)
