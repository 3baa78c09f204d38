"""How often something has happened, for a line of the log now and then: a line each would fill the disk. Pure.

The first is told at once, and what follows within `EVERY_S` is counted in the next line. Refuses to do: logging.
"""

from typing import Final

EVERY_S: Final = 10.0


class Tally:
    """Counts one thing."""

    def __init__(self) -> None:
        self._count, self._told_s = 0, -EVERY_S

    def note(self, now_s: float) -> int:
        """It has happened once more: return how often since it was told last, if it is to be told now, else 0."""
        self._count += 1
        if now_s - self._told_s < EVERY_S:
            return 0
        count, self._count, self._told_s = self._count, 0, now_s
        return count
