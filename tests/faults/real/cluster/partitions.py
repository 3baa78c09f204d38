"""Partitions of a running cluster: drawn parties no longer hear drawn others, in one direction or both, for a while.

Some are short, so that TCP goes on; some are longer than what the parties take for silence, so that nodes count as gone
and their objects are copied meanwhile. In a quarter of them nobody is cut off, and everybody loses packets. Refuses to
do: judging.
"""

import random
from typing import Final, NamedTuple

from tests.faults.real.cluster.nets import Nets
from tests.faults.real.cluster.running import Running

BEFORE_S: Final = (0.3, 2.0)
SHORT_S: Final = (0.5, 4.0)
LONG_S: Final = (8.0, 14.0)  # beyond `silent_after_s` and the grace time of this campaign
LONG: Final = 0.15
HANGING_S: Final = 35.0  # beyond transfer/silence.py
HANGING: Final = 0.03
LOSSY: Final = 0.25  # of all
LOSS: Final = (0.01, 0.3)  # of the packets


class Partition(NamedTuple):
    """Who does not reach whom, after how long, and for how long; or which share of all packets is lost."""

    kind: str
    pairs: tuple[tuple[str, str], ...]
    before_s: float
    lasts_s: float
    loss: float = 0.0


def draw(seed: int, number: int, nodes: list[str], *, is_short: bool) -> Partition:
    """Return partition `number` of a seed; a short campaign has short ones only."""
    chance = random.Random(f"{seed} {number}")
    one, other = chance.sample(nodes, 2)
    everybody = [*nodes, "gateway", "workstation"]
    kinds = {
        "node from all": [(one, each) for each in everybody if each != one],
        "gateway from all": [("gateway", each) for each in everybody if each != "gateway"],
        "node from node": [(one, other)],
        "node from gateway": [(one, "gateway")],
        "gateway from node": [("gateway", one)],
        "workstation from node": [("workstation", one)],
        "node from workstation": [(one, "workstation")],
        "workstation from gateway": [("workstation", "gateway")],
        "gateway from workstation": [("gateway", "workstation")],
    }
    kind = chance.choice(sorted(kinds))
    pairs = kinds[kind]
    is_two_way = chance.random() < 0.5
    if is_two_way:
        pairs = [*pairs, *((target, source) for source, target in pairs)]
    drawn = chance.random()
    lasts_s = chance.uniform(*SHORT_S)
    if not is_short and drawn < LONG + HANGING:
        lasts_s = HANGING_S if drawn < HANGING else chance.uniform(*LONG_S)
    if chance.random() < LOSSY:
        return Partition("loss", (), chance.uniform(*BEFORE_S), lasts_s, chance.uniform(*LOSS))
    return Partition(f"{kind}{', both ways' * is_two_way}", tuple(pairs), chance.uniform(*BEFORE_S), lasts_s)


class Partitions:
    """Partitions of one running cluster; `counts` by kind."""

    def __init__(self, running: Running, nets: Nets, seed: int, *, is_short: bool) -> None:
        self._running, self._nets, self._seed, self._is_short = running, nets, seed, is_short
        self.counts: dict[str, int] = {}
        self.during = 0  # acknowledgements while somebody was cut off, or everybody lost packets

    def part(self, number: int) -> None:
        """Let partition `number` happen, and heal it."""
        nodes = [node.name for node in self._running.site.nodes]
        drawn = draw(self._seed, number, nodes, is_short=self._is_short)
        self._running.go_on(drawn.before_s)
        before = len(self._running.load.acknowledged)
        for source, target in drawn.pairs:
            self._nets.cut(source, target)
        if drawn.loss:
            self._nets.lose(drawn.loss)
        self._running.go_on(drawn.lasts_s)
        self._nets.heal()
        self.during += len(self._running.load.acknowledged) - before
        self.counts[drawn.kind] = self.counts.get(drawn.kind, 0) + 1
