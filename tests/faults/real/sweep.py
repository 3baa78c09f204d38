"""The sweep: a fault at the n-th system call that makes something lasting, for every n of a part's batch.

| fault | what |
|---|---|
| `kill` | kill -9 instead of the call |
| `cut` | the same, and the power with it: what was not flushed is gone (on a disk of `tests.faults.real.loop`) |
| `EIO`, `ENOSPC` | the call is not made and answers so, once; the batch goes on |
| `short` | a write that takes only its first half |

strace counts each call by its name and by thread, and so does a point of the sweep. After each fault the part is opened
again and judged, does its batch again, and is judged again. Refuses to do: choosing what to store.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from tests.faults.real.forks import ENDED, Message, Say
from tests.faults.real.journal import Acknowledged, Journal
from tests.faults.real.loop import Disk
from tests.faults.real.role import Role
from tests.faults.real.shortened import count_writes, run_shortened
from tests.faults.real.totals import Totals
from tests.faults.real.traced import KILLS, Ended, Point, count_calls, run, run_traced

ERRORS: Final = ("EIO", "ENOSPC")
PROBLEMS_SAID: Final = 20


class Sweep:
    """Sweeps one part, each run in a fresh folder below `folder`; `outside` is not broken."""

    def __init__(
        self, role: Role, *, folder: Path, outside: Path, disk: Disk | None, journal: Journal, totals: Totals
    ) -> None:
        self._role, self._folder, self._disk = role, folder, disk
        self._log = outside / "trace"
        self._journal, self._totals = journal, totals

    def points(self) -> list[Point]:
        """Do the batch once without a fault; return every point there is."""
        folder = self._fresh("calls")
        ended = run_traced(partial(self._role.batch, folder), self._log, None)
        assert ended.code == ENDED and not ended.problems() + ended.errors(), ended
        text = self._log.read_text()
        lasting, every = count_calls(text, lasting=True), count_calls(text, lasting=False)
        kills = KILLS if self._disk is not None else ("kill",)
        found = [point for fault in kills for point in _each(fault, lasting)]
        found += [point for fault in ERRORS for point in _each(fault, every)]
        return found + list(_each("short", count_writes(partial(self._role.batch, self._fresh("writes")))))

    def try_point(self, point: Point) -> None:
        """Let the fault happen, judge, repeat the batch, judge again."""
        folder = self._fresh(f"{point.fault}-{point.call}-{point.number}")
        work = partial(self._role.batch, folder)
        ended = run_shortened(work, point) if point.fault == "short" else run_traced(work, self._log, point)
        ended = ended._replace(flushed_again=ended.flushed_again and not self._role.writes_again)
        promised = self._promised(folder, ended)
        if point.fault == "cut" and self._disk is not None:
            self._disk.cut()
            self._disk.restore()
        problems = ended.problems(killed=point.fault in KILLS and ended.fired) + ended.refused()
        problems += ended.errors() if point.fault == "short" else []
        problems += judge(self._role, folder, promised, self._totals)
        second = again(self._role, folder, promised)
        problems += [f"the second time: {text}" for text in problems_of(second)]
        promised |= self._promised(folder, second)
        self._totals.runs += 1
        self._totals.fired += ended.fired
        self._totals.acknowledged += len(promised)
        self._totals.note(" ".join([self._role.name, *map(str, point)]), problems)
        shutil.rmtree(folder)

    def _fresh(self, name: str) -> Path:
        folder = self._folder / f"{self._role.name}-{name}"
        ended = run(lambda _: self._role.prepare(folder))
        assert ended.code == ENDED and not ended.errors(), ended
        return folder

    def _promised(self, folder: Path, ended: Ended) -> dict[str, int]:
        promised = ended.promised()
        self._journal.note(Acknowledged(folder.name, key, seed) for key, seed in promised.items())
        return promised


def _each(fault: str, counts: Counter[str]) -> Iterable[Point]:
    return (Point(fault, call, number) for call in sorted(counts) for number in range(1, counts[call] + 1))


def judge(role: Role, folder: Path, promised: dict[str, int], totals: Totals) -> list[str]:
    """Check `folder` in a child of its own; return what is wrong, which includes a check that does not come back."""

    with totals.time_reopening():
        return problems_of(run(partial(_say_problems, role, folder, promised)))


def _say_problems(role: Role, folder: Path, promised: dict[str, int], say: Say) -> None:
    for problem in role.check(folder, promised)[:PROBLEMS_SAID]:
        say({"problem": problem[:2000]})
    say({"checked": True})


def again(role: Role, folder: Path, promised: dict[str, int]) -> Ended:
    """Do the batch a second time, which must go as if nothing had been, and judge by all that was ever promised."""

    def work(say: Say) -> None:
        kept = dict(promised)

        def keep(message: Message) -> None:
            if "key" in message:
                kept[message["key"]] = message["seed"]
            say(message)

        role.batch(folder, keep)
        _say_problems(role, folder, kept, say)

    return run(work)


def problems_of(ended: Ended) -> list[str]:
    """Return what is wrong with a child that was to check."""
    missing = [] if {"checked": True} in ended.messages else [f"the check did not end: {ended.errors()}"]
    return ended.problems() + ended.refused() + missing
