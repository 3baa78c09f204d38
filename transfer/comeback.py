"""When those who were turned away shall come back, and how that is said.

To turn somebody away costs a handshake. If all came back every second, a crowd would eat up what the served ones need;
if all waited long, places would stay empty. So each is told a moment of its own, one after another, as many in a second
as places have become free in a second of late and a quarter more, at least `RETURNS_PER_S`; and adds a second of chance
at most. HTTP says it as Retry-After; a refused flow in the words of its text, because the frame's fields are fixed.
Pure. Refuses to do: waiting, clocks, drawing numbers.
"""

import math
import re
from typing import Final

RETURNS_PER_S: Final = 25.0  # a refusal costs 1 to 3 ms of a processor, so this is 2 to 8 % of one
MORE_RATIO: Final = 1.25  # some come in vain, so that no place waits for them
LATELY_S: Final = 5.0
PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 60.0
SPREAD_S: Final = 1.0  # what is said is whole seconds
_TEXT: Final = re.compile(r"; try again in (\d{1,4}) s\Z")


class Comeback:
    """The moments that were given to those who were turned away, one after another."""

    def __init__(self) -> None:
        self._last_s = -math.inf
        self._freed, self._freed_s = 0.0, 0.0  # a decaying count, and when it was brought up to date

    def free(self, now_s: float) -> None:
        """Note that a place has become free."""
        self._freed = self._lately(now_s) + 1
        self._freed_s = now_s

    def refuse(self, now_s: float) -> float:
        """Give the next moment; return the seconds until then, whole ones."""
        returns_per_s = max(RETURNS_PER_S, MORE_RATIO * self._lately(now_s) / LATELY_S)
        wished_s = max(now_s + PAUSE_S_MIN, self._last_s + 1 / returns_per_s)
        self._last_s = min(wished_s, now_s + PAUSE_S_MAX)
        return float(math.floor(self._last_s - now_s + 1e-6))

    def _lately(self, now_s: float) -> float:
        return self._freed * math.exp(min(0.0, self._freed_s - now_s) / LATELY_S)


def with_pause(message: str, pause_s: float) -> str:
    """Return a message that also says when to come back."""
    return f"{message}; try again in {math.ceil(pause_s)} s"


def read_pause_s(message: str) -> float:
    """Return what `with_pause` said, 0.0 where a message does not."""
    found = _TEXT.search(message)
    return min(float(found[1]), PAUSE_S_MAX) if found else 0.0


def spread_s(pause_s: float, draw: float) -> float:
    """Return how long to wait when told `pause_s`: never less, up to a second more; `draw` is in [0, 1)."""
    return min(pause_s, PAUSE_S_MAX) + SPREAD_S * draw
