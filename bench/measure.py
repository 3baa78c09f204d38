"""One measurement: a function called again and again for a moment, its best turn kept (others share the machine).

Refuses to do: choosing what is measured, printing.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

TURNS, TURN_S = 3, 0.15


@dataclass(frozen=True)
class Figure:
    """What came out; `per_s` in MB or in things, as `unit` says, and a compression ratio where there is one."""

    name: str
    unit: str
    per_s: float
    ratio: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def best_s(work: Callable[[], object]) -> float:
    """Return the seconds that one call takes, in the best of several turns."""
    work()  # imports, caches
    best = float("inf")
    for _ in range(TURNS):
        began, calls = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < TURN_S or not calls:
            work()
            calls += 1
        best = min(best, elapsed / calls if calls else elapsed)
    return best
