"""A clock of its own for each machine of a cluster: what its processes read as the time of day is off the true one.

The distances are in memory that all processes share, so that a clock jumps while its processes run. What measures spans
(the monotonic clock) is left alone, as a step of a real clock leaves it. Refuses to do: clocks that are not read by our
own code (OpenSSL's, when it judges a certificate's validity, and SQLite's, which is not asked).
"""

import mmap
import struct
import time
from collections.abc import Callable
from typing import Final

PARTIES: Final = ("gateway", "node-1", "node-2", "node-3", "workstation")
FORM: Final = struct.Struct("q")
NS: Final = 10**9


class Clocks:
    """The clocks of the parties; all are right at first."""

    def __init__(self) -> None:
        self._distances = mmap.mmap(-1, FORM.size * len(PARTIES))

    def set(self, party: str, seconds: int) -> None:
        """Set a party's clock so far ahead of the true time (behind it, where negative)."""
        FORM.pack_into(self._distances, FORM.size * PARTIES.index(party), seconds)

    def enter(self, name: str) -> Callable[[], None]:
        """Return what gives a process the clock of the party `name`; whoever is none of them is on the workstation."""
        offset = FORM.size * PARTIES.index(name if name in PARTIES else "workstation")
        true_s, true_ns = time.time, time.time_ns

        def distance_s() -> int:
            return int(FORM.unpack_from(self._distances, offset)[0])

        def enter() -> None:
            time.time = lambda: true_s() + distance_s()
            time.time_ns = lambda: true_ns() + distance_s() * NS

        return enter
