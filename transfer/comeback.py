"""When those who were turned away shall come back, and how that is said.

To turn somebody away costs a handshake. If all came back every second, a crowd would eat up what the served ones need;
so the pause grows with the crowd, to let about `RETURNS_PER_S` come in a second. Whoever waits adds a share of chance,
or the crowd would stay in step. HTTP says it as Retry-After; a refused flow in the words of its text, because the
frame's fields are fixed. Pure. Refuses to do: waiting, clocks, drawing numbers.
"""

import math
import re
from collections import deque
from typing import Final

RETURNS_PER_S: Final = 20.0  # a refusal costs 1 to 3 ms of a processor, so this is 2 to 6 % of one
PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 60.0
REMEMBERED: Final = int(RETURNS_PER_S * PAUSE_S_MAX)  # more change nothing
_TEXT: Final = re.compile(r"; try again in (\d{1,4}) s\Z")


class Comeback:
    """Counts the crowd: those turned away within the pause that they were told."""

    def __init__(self) -> None:
        self._refused_s: deque[float] = deque(maxlen=REMEMBERED)
        self.pause_s = PAUSE_S_MIN

    def refuse(self, now_s: float) -> float:
        """Note a refusal; return the seconds after which to come back, whole ones."""
        self._refused_s.append(now_s)
        while self._refused_s[0] < now_s - max(self.pause_s, PAUSE_S_MIN) * 1.5:  # all have come once in this time
            self._refused_s.popleft()
        self.pause_s = float(math.ceil(min(max(len(self._refused_s) / RETURNS_PER_S, PAUSE_S_MIN), PAUSE_S_MAX)))
        return self.pause_s


def with_pause(message: str, pause_s: float) -> str:
    """Return a message that also says when to come back."""
    return f"{message}; try again in {math.ceil(pause_s)} s"


def read_pause_s(message: str) -> float:
    """Return what `with_pause` said, 0.0 where a message does not."""
    found = _TEXT.search(message)
    return min(float(found[1]), PAUSE_S_MAX) if found else 0.0


def spread_s(pause_s: float, draw: float) -> float:
    """Return how long to wait when told `pause_s`: never less, up to half as much again; `draw` is in [0, 1)."""
    return min(pause_s, PAUSE_S_MAX) * (1 + draw / 2)
