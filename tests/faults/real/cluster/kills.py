"""kill -9 of every role of a running cluster under load, also of several at once; pauses (SIGSTOP) are mixed in.

Kill `number` of the seed: how long after the one before, whom, and whether somebody stands still for a while. Every so
many kills the load ends and everything is judged. Refuses to do: letting a victim rest before it works again.
"""

import random
import signal
import time
from typing import Final, NamedTuple

from tests.faults.real.cluster.parts import Part
from tests.faults.real.cluster.running import Running

WAIT_S: Final = (0.05, 1.8)
SEVERAL: Final = 0.15  # of the moments have more than one victim
PAUSES: Final = 0.1
PAUSE_S: Final = (0.1, 2.0)
WEIGHTS: Final = {"gateway": 2, "node": 5, "agent": 2, "send": 3}


class Moment(NamedTuple):
    """What happens: after how long, who is killed (roles), who stands still for how long ("": nobody)."""

    wait_s: float
    roles: tuple[str, ...]
    pauses: str
    pause_s: float


def draw(seed: int, number: int) -> Moment:
    """Return the moment `number` of a seed."""
    chance = random.Random(f"{seed} {number}")
    count = chance.choice((2, 2, 3, 5)) if chance.random() < SEVERAL else 1
    roles = tuple(chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count))
    pauses = chance.choice(list(WEIGHTS)) if chance.random() < PAUSES else ""
    return Moment(chance.uniform(*WAIT_S), roles, pauses, chance.uniform(*PAUSE_S))


class Kills:
    """Kills in one running cluster; `counts` are kills by role."""

    def __init__(self, running: Running, seed: int) -> None:
        self._running, self._seed = running, seed
        self._paused: dict[int, float] = {}  # pid and until when
        self.counts: dict[str, int] = dict.fromkeys(WEIGHTS, 0)
        self.pauses = 0

    def kill(self, number: int) -> int:
        """Let moment `number` happen; return how many were killed."""
        moment = draw(self._seed, number)
        chance = random.Random(f"{self._seed} {number} whom")
        self._wait(moment.wait_s)
        killed = 0
        for role in moment.roles:
            part = self._choose(role, chance)
            if part is not None and self._running.kill(part):
                self.counts[role] += 1
                killed += 1
        if moment.pauses and (part := self._choose(moment.pauses, chance)) is not None:
            self._pause(part, moment.pause_s)
        return killed

    def rest(self) -> None:
        """Let everybody go on who stands still."""
        for pid in list(self._paused):
            self._continue(pid)

    def _wait(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._running.go_on(min(left_s, 0.1))
            for pid, until_s in list(self._paused.items()):
                if time.monotonic() >= until_s:
                    self._continue(pid)

    def _choose(self, role: str, chance: random.Random) -> Part | None:
        site = self._running.site
        parts = {
            "gateway": [site.gateway],
            "agent": [site.agent],
            "node": site.nodes,
            "send": [sending.part for sending in self._running.load.running],
        }[role]
        there = [part for part in parts if part.pid]
        return chance.choice(there) if there else None

    def _pause(self, part: Part, seconds: float) -> None:
        self.pauses += 1
        self._paused[part.pid] = time.monotonic() + seconds
        part.send(signal.SIGSTOP)

    def _continue(self, pid: int) -> None:
        del self._paused[pid]
        for part in [*self._running.site.parts, *(one.part for one in self._running.load.running)]:
            if part.pid == pid:  # the number may be another's by now, if it was killed
                part.send(signal.SIGCONT)
