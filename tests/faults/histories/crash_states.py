"""Every moment at which the power may go while a database is worked, and what it may leave: opened again and judged.

The production code works a database once on the simulated disk, which is copied before every system call that changes
something. Of each copy the power is cut in many ways (`filesystem`), and what is left is opened by the production code.
The promise: SQLite finds its file sound, and it holds what it held after the last step that was answered, or after the
step that was under way, table by table; never less, more, or a part of a step. And each call fails once, in a work of
its own (a flush that fails loses what it was of): what was refused is done again, and nothing is missing at the end.
Refuses to do: choosing what to work.
"""

import argparse
import errno
import hashlib
import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults.histories.campaign import write_results
from tests.faults.histories.databases import SQLITE_VERSION, SUBJECTS, Dump, Subject, open_databases
from tests.faults.histories.filesystem import FileSystem, walk
from tests.faults.histories.machine import Machine
from tests.faults.histories.running import CHANGES, FLUSHES
from tests.faults.histories.world import Violation, World, open_world
from transfer.errors import FascicleError

ERRORS = (errno.EIO, errno.ENOSPC)


class Recorder(Machine):
    """A machine that tells before each call that changes something."""

    before_change: Callable[[], None] | None = None

    def _enter(self, call: str, subject: str = "") -> None:
        super()._enter(call, subject)
        if self.before_change is not None and (call in CHANGES or call in FLUSHES):
            self.before_change()


class Moment(NamedTuple):
    """What the disk was like, and how many steps had been answered."""

    disk: FileSystem
    answered: int


class Recording(NamedTuple):
    """Each moment of the work, and what the database held after each number of answers."""

    moments: list[Moment]
    held: list[Dump]

    @property
    def changes(self) -> int:
        """The number of system calls that change something."""
        return len(self.moments) - 2


class CrashStates:
    """Of one subject; made in an open world with a `Recorder`."""

    def __init__(self, subject: Subject, world: World) -> None:
        self._subject, self._world = subject, world
        self._judged: set[tuple[bytes, int]] = set()
        self.counts: Counter[str] = Counter()

    def record(self) -> Recording:
        """Work the database once, without a fault."""
        machine = self._world.machine
        assert isinstance(machine, Recorder)
        self._subject.prepare()
        machine.disk.flush_everything()
        moments, after = [Moment(_twin(machine.disk), 0)], [_twin(machine.disk)]

        def answered() -> None:
            after.append(_twin(machine.disk))

        machine.before_change = lambda: moments.append(Moment(_twin(machine.disk), len(after) - 1))
        self._subject.play(answered)
        machine.before_change = None
        moments.append(Moment(_twin(machine.disk), len(after) - 1))
        self.counts |= {"moments": len(moments), "steps": len(after) - 1}
        held = [self._dump(disk) for disk in after]
        for number, (before, then) in enumerate(itertools.pairwise(held)):
            if before == then:
                raise Violation(f"{self._subject.name}: answer {number} came before anything was to be seen of it")
        return Recording(moments, held)

    def try_all(self, recording: Recording, seeds: range, *, part: slice = slice(None)) -> None:
        """Cut the power at each moment (of `part`) in as many ways as there are seeds.

        Raises:
            Violation: a promise is broken; the message names subject, moment and seed.
        """
        for seed in seeds:
            for number in range(len(recording.moments))[part]:
                try:
                    self._try(recording, number, seed)
                except Exception as error:
                    raise Violation(f"{self._subject.name}, moment {number}, seed {seed}: {error!r}") from error

    def try_errors(self, recording: Recording, errors: Iterable[int], *, part: slice = slice(None)) -> None:
        """Work it anew for each change of `part`, which fails once; what was refused is done again; cut the power.

        Raises:
            Violation: it does not hold then what it held without the error.
        """
        for number in range(recording.changes)[part]:
            for error in errors:
                try:
                    self._try_error(recording, number, error)
                except Exception as failure:
                    what = f"{self._subject.name}, {errno.errorcode[error]} at change {number}"
                    raise Violation(f"{what}: {failure!r}") from failure

    def _try_error(self, recording: Recording, number: int, error: int) -> None:
        machine, rng = self._world.machine, random.Random(f"{error} {number}")
        assert isinstance(machine, Recorder)
        machine.disk = recording.moments[0].disk.twin(rng)
        machine.start_again(power_cut=False)
        left = itertools.count(-number)

        def fail() -> None:
            if next(left) == 0:
                raise OSError(error, os.strerror(error))

        machine.before_change = fail
        answers = self._play_on(machine, len(recording.held))
        self.counts["errors"] += next(left) > 0
        disk = machine.disk.twin(rng)
        disk.cut_power()
        if (found := self._dump(disk)) not in recording.held[answers : answers + 2]:
            raise Violation(_difference(found, recording.held[answers]))

    def _play_on(self, machine: Recorder, steps: int) -> int:
        """Work it; return how many steps were answered: all, unless the error stopped the file system for good."""
        answered = itertools.count(1)
        try:
            self._subject.play(lambda: next(answered))
        except FascicleError:
            if not machine.disk.read_only:
                raise
        machine.before_change = None
        answers = next(answered) - 1
        if answers != steps - 1 and not machine.disk.read_only:
            raise Violation(f"{answers} answers")
        return answers

    def _try(self, recording: Recording, number: int, seed: int) -> None:
        moment = recording.moments[number]
        disk = moment.disk.twin(random.Random(f"{seed} {number}"))
        disk.cut_power()
        self.counts["states"] += 1
        state = (_fingerprint(disk), moment.answered)
        if state in self._judged:
            return
        self._judged.add(state)
        self.counts["different"] += 1
        found = self._dump(disk)
        if found not in recording.held[moment.answered : moment.answered + 2]:
            raise Violation(f"after {moment.answered} answers: {_difference(found, recording.held[moment.answered])}")

    def _dump(self, disk: FileSystem) -> Dump:
        """Open what is on a disk, as it is seen, in a process of its own."""
        machine = self._world.machine
        machine.disk = disk
        machine.start_again(power_cut=False)
        return self._subject.dump()


def _twin(disk: FileSystem) -> FileSystem:
    return disk.twin(random.Random(0))


def _fingerprint(disk: FileSystem) -> bytes:
    found = hashlib.blake2b()
    for path, file in walk(disk.root):
        found.update(f"{path} {len(file.data)}\n".encode() + file.data)
    return found.digest()


def _difference(found: Dump, held: Dump) -> str:
    for table in held:
        if found[table] != held[table]:
            return f"{table}: {len(found[table])} rows {found[table][:2]}, and not {len(held[table])} {held[table][:2]}"
    return "nothing"


def try_subject(
    subject: Subject, seeds: range, *, errors: Sequence[int] = (), part: slice = slice(None)
) -> Counter[str]:
    """Record a subject, try its states and errors at each moment of `part`; return how many there were.

    Raises:
        Violation: a promise is broken.
    """
    world = World(0, machine=Recorder)
    world.strands._ratio = 0.0
    with open_world(world), open_databases(world) as under:
        states = CrashStates(subject, world)
        recording = states.record()
        under.end_process()
        states.try_all(recording, seeds, part=part)
        states.try_errors(recording, errors, part=part)
    return states.counts


def main() -> int:
    """Try every subject in many ways, and write down what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.histories.crash_states", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="ways of cutting at each moment")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--subject", choices=list(SUBJECTS), action="append", help="this one alone")
    parser.add_argument("--results", type=Path, default=Path("faults-results/crash-states.json"))
    given = parser.parse_args()
    seeds, total, broken, start_s = range(given.first, given.first + given.count), Counter[str](), [], time.monotonic()
    for name in given.subject or SUBJECTS:
        try:
            found = try_subject(SUBJECTS[name], seeds, errors=ERRORS)
        except Violation as error:
            broken.append(str(error))
            continue
        total.update({f"{name} {key}": value for key, value in found.items()})
    write_results(given.results, seeds, total, time.monotonic() - start_s, broken)
    print(json.dumps({"totals": total, "sqlite": SQLITE_VERSION, "broken": broken, "results": str(given.results)}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
