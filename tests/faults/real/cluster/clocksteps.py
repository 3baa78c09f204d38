"""Clocks of single parties of a running cluster that jump by hours and days, forwards and back, in mid-transfer.

Parties are also started anew while their clock is wrong. Meanwhile commands end well, or with a reason that names the
time or too few nodes; after the clocks are right again the same commands end well. Refuses to do: clocks that run at
another speed.
"""

import random
import signal
from typing import Final

from tests.faults.real.cluster.clocks import PARTIES, Clocks
from tests.faults.real.cluster.running import Running

STEPS_S: Final = (-30 * 86_400, -3 * 86_400, -7_200, -400, 400, 7_200, 3 * 86_400, 30 * 86_400)
BEFORE_S: Final = (0.5, 2.0)
LASTS_S: Final = (1.0, 5.0)
RESTARTS: Final = 0.4
TELLING: Final = ("expired", "set the clocks", "are wished")
KILLED: Final = "does not answer"


class Steps:
    """Steps of the clocks of one running cluster; `counts` by party."""

    def __init__(self, running: Running, clocks: Clocks, seed: int) -> None:
        self._running, self._clocks, self._seed = running, clocks, seed
        self.counts: dict[str, int] = dict.fromkeys(PARTIES, 0)
        self.restarts = 0

    def step(self, number: int) -> None:
        """Let step `number` happen, and set the clock right again."""
        chance = random.Random(f"{self._seed} {number}")
        self._running.go_on(chance.uniform(*BEFORE_S))
        party, seconds = chance.choice(PARTIES), chance.choice(STEPS_S)
        self._clocks.set(party, seconds)
        self.counts[party] += 1
        parts = [part for part in self._running.site.parts if part.name == party]
        if parts and chance.random() < RESTARTS:
            self._running.excused.add(party)
            parts[0].send(signal.SIGKILL)
            self.restarts += 1
        self._running.go_on(chance.uniform(*LASTS_S))
        self._clocks.set(party, 0)

    def unclear(self) -> list[str]:
        """Return what commands said that tells nobody to look at the clocks."""
        return [
            f"unclear: {words}"
            for words in self._running.load.failed
            if not any(word in words for word in (*TELLING, KILLED))
        ]
