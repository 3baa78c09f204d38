"""Lives: parts work for ever, and end by kill -9 or with the power at a moment that is drawn; then they are judged.

A promise that was given after the power had gone is none: with a machine's power its processor stops, where here the
kernel goes on, and may answer a flush that the cut overtakes as done. The child's clock tells which these are; they are
counted, and so are those of them that are lost.

The moment is drawn in promises, and in microseconds behind the last of them, so that it falls into the work on any
machine. A folder is lived in `LIVES` times, and judged after each by everything that was ever promised there; the last
time by the journal alone. Refuses to do: repairing anything between two lives.
"""

import random
import shutil
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tests.faults.real.forks import Child, Message, fork
from tests.faults.real.journal import Acknowledged, Journal, read_journal
from tests.faults.real.loop import Disk
from tests.faults.real.role import Role
from tests.faults.real.sweep import judge
from tests.faults.real.totals import Totals
from tests.faults.real.traced import Ended, finish

LIVES: Final = 4
TOGETHER_IN: Final = 4  # places
NONE_IN: Final = 3  # one life in four ends before its first promise, or soon after
BEHIND_S: Final = 0.01
AFTER_CUT_S: Final = 0.002  # the dead keep trying: nothing may be promised any more
SEEDS: Final = 100_000  # of one life; those below are of the batches, whose contents are others
STARTED_S: Final = 30.0


class Lives:
    """Lives of parts below `folder`; with a `disk` they end with its power."""

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        folder: Path,
        disk: Disk | None,
        journal: Journal,
        totals: Totals,
        promises_max: int,
    ) -> None:
        """`promises_max`: before the end of a life."""
        self._roles, self._folder, self._disk = roles, folder, disk
        self._journal, self._totals = journal, totals
        self._promises_max = promises_max
        self._promised: dict[str, dict[str, int]] = {}
        self._late: list[dict[str, int]] = []  # of this life, by role

    def live(self, number: int) -> None:
        """Live life `number` of the seed, and judge what it leaves."""
        chance = random.Random(f"{self._totals.seed} {number}")
        place = number // LIVES
        roles = self._of(place)
        folders = {role.name: self._folder / f"{place}-{role.name}" for role in roles}
        ended = self._work(roles, folders, number, chance)
        for role in roles:
            folder = folders[role.name]
            heard = ended[role.name].promised()
            self._promised.setdefault(folder.name, {}).update(heard)
            self._totals.acknowledged += len(heard)
            problems = self._unprepared(ended[role.name])
            problems += judge(role, folder, self._promised[folder.name], self._totals)
            self._count_late(role, folder, self._late.pop(0))
            if number % LIVES == LIVES - 1:
                problems += self._judge_by_journal(role, folder)
            self._totals.note(f"life {number} of {role.name}", problems)
            self._totals.count_run_of(role.name)
        self._totals.runs += 1

    def finish(self) -> None:
        """Judge by the journal where the last life has not."""
        for name in list(self._promised):
            role = next(role for role in self._roles if name.endswith(f"-{role.name}"))
            self._totals.note(f"the end of {name}", self._judge_by_journal(role, self._folder / name))
        left = sorted(path.name for path in self._folder.iterdir() if path.name != "lost+found")
        self._totals.note("what the lives left", [f"still there: {name}" for name in left])

    def _of(self, place: int) -> Sequence[Role]:
        """Return who lives in a place: one part after the other, each as often; in every fourth of a disk all."""
        if self._disk is None:
            return [self._roles[place % len(self._roles)]]
        before = place // TOGETHER_IN
        is_together = place % TOGETHER_IN == TOGETHER_IN - 1
        return self._roles if is_together else [self._roles[(place - before) % len(self._roles)]]

    def _work(
        self, roles: Sequence[Role], folders: dict[str, Path], number: int, chance: random.Random
    ) -> dict[str, Ended]:
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        children = {role.name: fork(partial(role.for_ever, folders[role.name], (number + 1) * SEEDS)) for role in roles}
        heard: dict[str, list[Message]] = {name: [] for name in children}
        first = roles[0].name
        wanted = chance.choice((0, *(chance.randrange(self._promises_max) for _ in range(NONE_IN))))
        self._hear(children[first], heard[first], wanted, folders[first])
        time.sleep(chance.uniform(0, BEHIND_S))
        gone_ns = None
        self._totals.fired += all(_alive(child) for child in children.values())
        if self._disk is not None:
            gone_ns = time.monotonic_ns()
            self._disk.cut()
            time.sleep(chance.uniform(0, AFTER_CUT_S))
        for child in children.values():
            child.kill()
        ended = {}
        for name, child in children.items():
            rest = self._in_time(finish(child), gone_ns)
            self._note(folders[name], rest.messages)
            ended[name] = rest._replace(messages=heard[name] + rest.messages)
        if self._disk is not None:
            self._disk.restore()
        return ended

    def _in_time(self, ended: Ended, gone_ns: int | None) -> Ended:
        """Leave out promises that were given when the power had gone."""
        in_time, late = [], []
        for message in ended.messages:
            too_late = gone_ns is not None and message.get("at_ns", 0) >= gone_ns
            (late if too_late else in_time).append(message)
        self._late.append(ended._replace(messages=late).promised())
        return ended._replace(messages=in_time)

    def _count_late(self, role: Role, folder: Path, late: dict[str, int]) -> None:
        if late:
            more = self._totals.more
            more["too_late"] = more.get("too_late", 0) + len(late)
            more["too_late_lost"] = more.get("too_late_lost", 0) + len(judge(role, folder, late, self._totals))

    def _hear(self, child: Child, heard: list[Message], wanted: int, folder: Path) -> None:
        """Hear, and note in the journal, so many promises."""
        promises = 0
        while promises < wanted and (message := child.hear(STARTED_S)) is not None:
            heard.append(message)
            promises += "key" in message
            self._note(folder, [message])

    def _note(self, folder: Path, messages: list[Message]) -> None:
        self._journal.note(
            Acknowledged(folder.name, message["key"], message["seed"]) for message in messages if "key" in message
        )

    def _unprepared(self, ended: Ended) -> list[str]:
        """Return what it did that neither the kill nor the cut explains."""
        crashes = [message["crashed"] for message in ended.messages if "crashed" in message]  # and killed after it
        problems = crashes + ended.problems(killed=ended.code == -signal.SIGKILL)
        if self._disk is not None:
            return problems  # an error of ours is right, on a disk that is gone
        return problems + [f"ended by itself: {error}" for error in ended.errors()]

    def _judge_by_journal(self, role: Role, folder: Path) -> list[str]:
        noted = read_journal(self._journal.path).get(folder.name, {})
        problems = [] if noted == self._promised.pop(folder.name) else ["the journal is not what was heard"]
        problems += judge(role, folder, noted, self._totals)
        shutil.rmtree(folder)
        if self._disk is not None:
            self._disk.sync()  # or the next cut takes that back: after a thousand of them the disk was full
        return problems


def _alive(child: Child) -> bool:
    """Tell whether a child has not ended by itself."""
    return (Path("/proc") / str(child.pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
