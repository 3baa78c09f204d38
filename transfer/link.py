"""What a transfer's link takes, as measured of late. Pure.

Only a link that flows have bytes waiting for says how fast it is. Where nothing waits for it, it could take more than
it was given: then the estimate grows until something waits, so that neither a slow encoder nor a busy processor is ever
mistaken for a slow link. Where bytes seldom wait, something else binds: then the link `is_idle`, however fast it is.
Refuses to do: measuring.
"""

from typing import Final

UNKNOWN_BYTES_S: Final = 2e6  # before anything is known: to take a slow link for a fast one costs the most
NEAR_BYTES_S: Final = 50e6
NEAR_S: Final = 0.001
LEAST_BYTES_S: Final = 1e3
MOST_BYTES_S: Final = 12.5e9
SMOOTH: Final = 0.3
GROWTH: Final = 1.5  # a sample
TELLING: Final = 0.1
TELLING_BYTES_S: Final = TELLING * NEAR_BYTES_S  # what trickles while nothing waits tells nothing of an idle link
# Of the samples: a link that binds is full in 0.9 to 1.0, a fast one with busy processors at its ends in 0.2 to 0.55.
RARELY_FULL: Final = 0.6
OFTEN_FULL: Final = 0.8
FULLNESS_SMOOTH: Final = 0.1


class Link:
    """Goodput on the wire; `remembered_bytes_s`: what the path took last time, 0.0 when it is new."""

    def __init__(self, remembered_bytes_s: float = 0.0) -> None:
        self.bytes_s = UNKNOWN_BYTES_S
        self.is_known = self._is_remembered = False
        self.is_idle = False  # something else binds
        self._full_ratio = 1.0
        self._best_bytes_s = 0.0
        self._is_measured = False
        if remembered_bytes_s > 0:
            self.recall(remembered_bytes_s)

    def recall(self, bytes_s: float) -> None:
        """Begin with what the path took last time; nothing changes when it has been measured meanwhile."""
        if not self._is_measured:
            self.bytes_s = min(max(bytes_s, LEAST_BYTES_S), MOST_BYTES_S)
            self.is_known = self._is_remembered = True

    def hint(self, rtt_s: float) -> None:
        """Begin with more where the other end is near: round trips below a millisecond are those of a local network."""
        if not self.is_known and 0 < rtt_s < NEAR_S:
            self.bytes_s, self.is_known = NEAR_BYTES_S, True

    def take(self, bytes_s: float, *, is_full: bool) -> None:
        """Take in one sample; `is_full`: bytes waited for the link."""
        bytes_s = max(bytes_s, LEAST_BYTES_S)
        self._note_fullness(bytes_s, is_full=is_full)
        if not is_full:
            if bytes_s >= TELLING * self.bytes_s:  # less, and there was only nothing to send
                self.bytes_s = min(max(self.bytes_s * GROWTH, bytes_s), MOST_BYTES_S)
                self.is_known = True
            return
        if not self._is_measured and self._best_bytes_s < bytes_s < self.bytes_s:
            self._best_bytes_s = bytes_s  # flows are still speeding up: that says nothing yet
            return
        if not self._is_measured and not self._is_remembered:
            self.bytes_s = max(bytes_s, self._best_bytes_s)
        self.is_known = self._is_measured = True
        self.bytes_s += SMOOTH * (bytes_s - self.bytes_s)

    def _note_fullness(self, bytes_s: float, *, is_full: bool) -> None:
        if is_full or bytes_s >= TELLING_BYTES_S:
            self._full_ratio += FULLNESS_SMOOTH * (is_full - self._full_ratio)
            self.is_idle = self._full_ratio < (OFTEN_FULL if self.is_idle else RARELY_FULL)
