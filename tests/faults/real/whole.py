"""Power cuts of a whole cluster: gateway and nodes each on a disk of their own, of which one or both lose their power.

A transfer is under way, by the command that anybody uses. Everything is killed with the cut, started again, and the
same command must finish by itself. What a command had said is stored before is the promise: all of it, and nothing
else, comes back bit for bit, once. A command that was cut off may have committed and not said so: then all of its
images are there, or else none. Refuses to do: any step that a person would have to do.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.cluster import Cluster, processes_of, start_cluster
from bench.generate import write_series
from tests.cluster.harness import contents, listing
from tests.faults.real.journal import Acknowledged, Journal
from tests.faults.real.loop import Disk, open_disk
from tests.faults.real.totals import Totals

IMAGES: Final = 40
NODES: Final = 2
VICTIMS: Final = ("both", "both", "gateway", "nodes")
ATTEMPTS: Final = 3
DISK_MIB: Final = 3_072  # a node keeps a GiB in reserve
GONE_S: Final = 20.0


class Whole:
    """A cluster below `work`; made by `open_whole`."""

    def __init__(self, work: Path, disks: dict[str, Disk], journal: Journal, totals: Totals) -> None:
        self._work, self._disks = work, disks
        self._journal, self._totals = journal, totals
        self._sources: list[Path] = []
        self._cluster = self._start()

    def cut(self, number: int) -> None:
        """Do cut `number` of the seed, in a transfer of its own, and judge what is there after it."""
        chance = random.Random(f"{self._totals.seed} {number}")
        source = self._work / f"in-{number}"
        write_series(source, IMAGES, seed=self._totals.seed * 10_000 + number, rows=64, columns=64)
        victim = chance.choice(VICTIMS)
        at_work = self._cut_in(source, victim, chance)
        before = time.monotonic()
        self._cluster = self._start()
        self._totals.reopened_s_max = max(self._totals.reopened_s_max, round(time.monotonic() - before, 3))
        self._totals.runs += 1
        self._totals.fired += at_work
        problems = [*self._judge(unsaid=source), *self._finish(source), *self._judge(deep=True)]
        self._totals.note(f"cut {number} of {victim}", problems)

    def stop(self) -> None:
        """Stop the cluster."""
        self._totals.note("the end", self._cluster.stop())

    def _start(self) -> Cluster:
        return start_cluster(self._work / "cluster", "--plain", nodes=NODES)

    def _cut_in(self, source: Path, victim: str, chance: random.Random) -> bool:
        """Cut while `source` is sent; tell whether the sender was still at work."""
        wanted = self._stored() + chance.randrange(IMAGES)
        pids = [*self._cluster.pids().values(), self._cluster.process.pid]
        sender = self._cluster.start("send", source)
        while sender.poll() is None and self._stored() < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        at_work = sender.poll() is None
        if sender.poll() == 0:
            self._promise(source)
        for name, disk in self._disks.items():
            if victim in ("both", name):
                disk.cut()
        for pid in {*pids, sender.pid}:
            with contextlib.suppress(ProcessLookupError):  # the cut has ended it
                os.kill(pid, signal.SIGKILL)
        sender.communicate()
        self._cluster.process.communicate()
        self._wait_gone()
        for disk in self._disks.values():
            disk.restore()
        return at_work

    def _stored(self) -> int:
        with contextlib.suppress(OSError):  # the disk is cut off, or a file has moved
            return len(list(self._cluster.data.glob("nodes/*/objects/??/??/*")))
        return 0

    def _wait_gone(self) -> None:
        deadline_s = time.monotonic() + GONE_S
        while processes_of(self._cluster.data):
            assert time.monotonic() < deadline_s, processes_of(self._cluster.data)
            time.sleep(0.005)

    def _finish(self, source: Path) -> list[str]:
        """Run the same command until it says that all is done."""
        for _ in range(ATTEMPTS):
            result = self._cluster.run("send", source)
            if result.code == 0:
                self._promise(source)
                return []
        return [f"the same command does not finish: {result.code} {result.errors[-500:]}"]

    def _promise(self, source: Path) -> None:
        if source not in self._sources:
            self._sources.append(source)
            found = contents(source)
            self._totals.acknowledged += len(found)
            self._journal.note(Acknowledged("cluster", name, 0) for name in found)

    def _judge(self, *, unsaid: Path | None = None, deep: bool = False) -> list[str]:
        """What was ever said to be stored comes back, perhaps all of the `unsaid` transfer, and nothing else."""
        out = self._work / f"out-{time.monotonic_ns()}"
        got = self._cluster.run("get", "--all", out)
        found = contents(out)
        expected = Counter({name: 1 for source in self._sources for name in contents(source)})
        if unsaid is not None and contents(unsaid).keys() & found.keys():
            self._totals.more["committed_unsaid"] = self._totals.more.get("committed_unsaid", 0) + 1
            expected |= Counter(dict.fromkeys(contents(unsaid), 1))
        problems = [f"get: {got.code} {got.errors[-500:]}"] if got.code and expected else []
        problems += [f"LOST or doubled: {name}: {found[name]}" for name in expected if found[name] != 1]
        problems += [f"not expected: {name}" for name in found if name not in expected]
        ids = [entry["object_id"] for entry in listing(self._cluster)]
        if len(ids) != len(set(ids)) or len(ids) != len(expected):
            problems.append(f"{len(ids)} listed, {len(set(ids))} different, {len(expected)} promised")
        checked = self._cluster.run("verify", *["--deep"] * deep)
        return problems + ([f"verify: {checked.summary}"] if checked.code else [])


@contextlib.contextmanager
def open_whole(work: Path, journal: Journal, totals: Totals) -> Iterator[Whole]:
    """Start a cluster whose gateway and nodes can lose their power, and stop it at the end."""
    data = work / "cluster" / "data"
    with contextlib.ExitStack() as stack:
        disks = {
            name: stack.enter_context(open_disk(work / name, DISK_MIB, mount=data / name))
            for name in ("gateway", "nodes")
        }
        whole = Whole(work, disks, journal, totals)
        try:
            yield whole
        finally:
            whole.stop()
