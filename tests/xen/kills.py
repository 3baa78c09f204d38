"""kill -9 of apply at its steps, in one form for the tests and for `make xen-kills`.

A run is a process. The server, which lives on, kills it at the n-th call that changes something, either before the call
is carried out or after it was, without an answer. Calls that only keep the lock or tidy tasks away are not counted, or
no run would come to its work.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.xen import cloud_link
from tests.xen.kit import Site, open_site
from tests.xen.server.database import Failure
from xen import poolfile

NOT_COUNTED = ("pool.", "task.", "session.", "event.")
ROOT = Path(__file__).parents[2]


@dataclass
class Killer:
    """Starts runs, and kills them."""

    site: Site
    process: subprocess.Popen[str]
    socket: Path
    at: int = 0
    before: bool = False
    victim: int = 0
    count: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def told_before(self, call: str) -> None:
        """Count a call that is about to be carried out."""
        if call.startswith(NOT_COUNTED):
            return
        with self.lock:
            self.count += 1
            hit = self.count == self.at
        if hit and self.before:
            self.kill(f"before {call}")
            raise Failure("KILLED")

    def told_after(self, call: str) -> None:
        """Kill after a call, if it is the one."""
        if call.startswith(NOT_COUNTED):
            return
        with self.lock:
            hit = self.count >= self.at > 0 and not self.before and self.victim
        if hit:
            self.kill(f"after {call}")

    def kill(self, what: str) -> None:
        """Kill the run."""
        with self.lock:
            victim, self.victim = self.victim, 0
        if victim:
            self.kills[what] += 1
            os.kill(victim, signal.SIGKILL)

    def run(self, at: int = 0, *, before: bool = False, task: str = "apply") -> int:
        """Start a run that is killed at its `at`-th call (0: never); return how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.lock:
            self.at, self.before, self.count, self.victim = at, before, 0, 0
        order = {"task": task, "folder": str(self.site.folder), "socket": str(self.socket)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        with self.lock:
            self.victim = int(self.process.stdout.readline())
        return int(self.process.stdout.readline())


@contextmanager
def open_killer(site: Site) -> Iterator[Killer]:
    """Open a source of runs at the site."""
    socket = site.folder / "cloud"
    with ExitStack() as stack:
        process: Any = subprocess.Popen(
            [sys.executable, "-m", "tests.xen.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        killer = Killer(site, process, socket)
        stack.enter_context(cloud_link.serve(site.cloud, socket, killer.told_before, killer.told_after))
        site.wire.calls.before, site.wire.calls.after = killer.told_before, killer.told_after
        yield killer


def sweep(killer: Killer, *, cycle: int, runs_max: int) -> int:
    """Kill each run at its 1st, 2nd, ... `cycle`-th call, then the 1st again, in turn before and after it, until a run
    has nothing left to do; return after how many."""
    for number in range(runs_max):
        code = killer.run(1 + number // 2 % cycle, before=number % 2 == 0)
        if code == 0:
            return number
        assert code == -signal.SIGKILL, code
        killer.site.nodes()  # none is doubled at any moment
    raise AssertionError(f"not done after {runs_max} runs")


def killed_each(killer: Killer, count: int, other: int, *, first: int = 1, stride: int = 1) -> int:
    """Kill a run that makes `count` of `other` nodes at its `first` call, then `stride` later, ..., in turn before and
    after it, each time from `other` and with one run after it that finishes; return at how many calls."""
    site = killer.site
    for number, at in enumerate(range(first, 999, stride)):
        for before in (True, False) if stride == 1 else (number % 2 == 0,):
            site.file(count=count, watch={"lanes": 1})
            code = killer.run(at, before=before)
            if code == 0:
                return number
            assert code == -signal.SIGKILL, code
            assert len(site.nodes()) <= max(count, other)
            assert killer.run() == 0
            forget_killed(site)
            site.assert_exactly(count)
            site.file(count=other, watch={"lanes": 1})
            assert killer.run() == 0
            site.assert_exactly(other)
    raise AssertionError


def killed_growing(killer: Killer) -> int:
    """Kill a round of the reconciler that grows from two nodes to three at its first call, its second, ..., before and
    after it, each time with rounds after it that finish; return at how many calls."""
    site = killer.site
    site.cloud.room_bytes = 100
    for at in range(1, 999):
        for before in (True, False):
            site.file(count=2, growth={"count_max": 3}, watch={"lanes": 1})
            assert killer.run() == 0
            site.assert_exactly(2)
            site.cloud.fill(1)
            code = killer.run(at, before=before, task="reconcile")
            if code == 0:
                return at - 1
            assert code == -signal.SIGKILL, code
            for _ in range(3):
                assert killer.run(task="reconcile") == 0
            forget_killed(site)
            assert poolfile.load(site.folder / "pool.toml", {}).nodes.count == 3
            site.assert_exactly(3)
    raise AssertionError


def forget_killed(site: Site) -> None:
    """Do what a pool does by itself after a while: end the sessions and tasks of processes that are gone."""
    site.pool.database.forget("task")
    site.pool.expire_sessions()


def main() -> None:
    """Kill at each call of one node's coming, its going, and a growing round; then bring thirty up and down, killed all
    the time."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder, open_site(Path(folder)) as site, open_killer(site) as killer:
        coming, going = killed_each(killer, 1, 0), killed_each(killer, 0, 1)
        print(json.dumps({"calls_of_coming": coming, "calls_of_going": going, "kills": sum(killer.kills.values())}))
    with tempfile.TemporaryDirectory() as folder, open_site(Path(folder)) as site, open_killer(site) as killer:
        growing = killed_growing(killer)
        print(json.dumps({"calls_of_growing": growing, "kills": sum(killer.kills.values())}))
    with tempfile.TemporaryDirectory() as folder, open_site(Path(folder), hosts=4) as site, open_killer(site) as killer:
        site.pool.delays.clone = 0.01
        runs = 0
        for number in range(rounds):
            for count in (30, 0):
                site.file(count=count, watch={"lanes": 1 + 7 * (number % 2)})
                runs += sweep(killer, cycle=24, runs_max=2000)
                forget_killed(site)
                site.assert_exactly(count)
        kills = dict(sorted(killer.kills.items()))
        print(json.dumps({"rounds": rounds, "runs": runs, "kills": sum(kills.values()), "at": kills}, indent=1))


if __name__ == "__main__":
    main()
