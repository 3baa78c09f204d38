"""When those who were turned away shall come back, and how that is said.

To turn somebody away costs a handshake. If all came back every second, a crowd would eat up what the served ones need;
if all waited long, places would stay empty. So each is told a moment of its own, one after another, and adds a second
of chance at most. How many come in a second follows what became of the last: few refused beside those who were served,
and more may come, since not all who were told do (a sender ends with the flows that it has); many refused, and fewer.
HTTP says it as Retry-After; a refused flow in the words of its text, because the frame's fields are fixed. Pure.
Refuses to do: waiting, clocks, drawing numbers.
"""

import math
import re
from typing import Final

RETURNS_PER_S: Final = 25.0  # to begin with; a refusal costs 1 to 3 ms of a processor, so this is 2 to 8 % of one
RETURNS_PER_S_MIN: Final = 10.0
RETURNS_PER_S_MAX: Final = 100.0
STEP_S: Final = 1.0
FEW_RATIO, MANY_RATIO = 0.1, 0.4  # refused for each one served
MORE_RATIO: Final = 1.5
FEWER_RATIO: Final = 0.8
PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 60.0
SPREAD_S: Final = 1.0  # what is said is whole seconds
_TEXT: Final = re.compile(r"; try again in (\d{1,4}) s\Z")


class Comeback:
    """The moments that were given to those who were turned away, one after another."""

    def __init__(self) -> None:
        self._last_s = -math.inf
        self._returns_per_s = RETURNS_PER_S
        self._served = self._refused = 0
        self._step_s = -math.inf  # when the two were counted from

    def refuse(self, now_s: float) -> float:
        """Give the next moment; return the seconds until then, whole ones."""
        self._refused += 1
        self._step(now_s)
        wished_s = max(now_s + PAUSE_S_MIN, self._last_s + 1 / self._returns_per_s)
        self._last_s = min(wished_s, now_s + PAUSE_S_MAX)
        return float(math.floor(self._last_s - now_s + 1e-6))

    def serve(self, now_s: float) -> None:
        """Note that one who had a place is done."""
        self._served += 1
        self._step(now_s)

    def _step(self, now_s: float) -> None:
        if now_s - self._step_s < STEP_S:
            return
        if self._last_s < now_s:  # nobody waits: as at the beginning
            self._returns_per_s = RETURNS_PER_S
        elif self._refused < FEW_RATIO * self._served:
            self._returns_per_s = min(self._returns_per_s * MORE_RATIO, RETURNS_PER_S_MAX)
        elif self._refused > MANY_RATIO * self._served:
            self._returns_per_s = max(self._returns_per_s * FEWER_RATIO, RETURNS_PER_S_MIN)
        self._served = self._refused = 0
        self._step_s = now_s


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
