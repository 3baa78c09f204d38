"""A running cluster under load: keeps every part running as a supervisor does, and judges it when asked to.

A part that ended is started again after a moment, by the same command, whatever ended it: that is all that is ever done
for it. One that ended by itself, and not because something was done to it, is a problem. Refuses to do: faults.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.faults.real.cluster.judge import Judge
from tests.faults.real.cluster.load import Load
from tests.faults.real.cluster.parts import Part, warm
from tests.faults.real.cluster.site import Site
from tests.faults.real.journal import Journal
from tests.faults.real.totals import Totals

PAUSE_S: Final = 0.1  # the supervisor's shortest (fascicle/supervisor.py)
READY_S: Final = 30.0
LOOK_S: Final = 0.005


class Running:
    """A cluster with its load; made by `open_running`."""

    def __init__(self, site: Site, load: Load, work: Path, totals: Totals) -> None:
        self.site, self.load, self.totals = site, load, totals
        self._judge = Judge(site, work, self.tend_parts)
        self._due_s: dict[str, float] = {}
        self.excused: set[str] = set()  # names of parts that something was done to, until they have started again
        self.held: set[str] = set()  # names of parts that somebody else looks after for now

    def tend(self) -> None:
        """Start again what has ended, and tend the load."""
        self.tend_parts()
        self.load.tend()

    def tend_parts(self) -> None:
        """Start again the parts that have ended."""
        now_s = time.monotonic()
        for part in self.site.parts:
            if part.name in self.held:
                continue
            code = part.ended()
            if code is not None:
                self._due_s[part.name] = now_s + PAUSE_S
                if part.name not in self.excused:
                    self.totals.note(part.name, [f"ended by itself with {code}: {part.tail()}"])
            if not part.pid and now_s >= self._due_s.get(part.name, 0.0):
                self.excused.discard(part.name)
                part.start()

    def go_on(self, seconds: float) -> None:
        """Let everything run for a while."""
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            self.tend()
            time.sleep(LOOK_S)

    def kill(self, part: Part, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal that ends a part; tell whether it ran."""
        self.excused.add(part.name)
        return part.send(number)

    def judge(self, where: str, *, whole: bool) -> None:
        """Let the load come to its end, and judge what is there."""
        self.load.flowing = False
        deadline_s = time.monotonic() + 2 * READY_S
        while self.load.running and time.monotonic() < deadline_s:
            self.tend()
            time.sleep(LOOK_S)
        stuck = [f"send {one.number} has not ended: {one.part.tail(300)}" for one in self.load.running]
        self.load.stop_modality()
        self.totals.note(where, [*stuck, *self._judge.problems(self.load.acknowledged, whole=whole)])

    def go_on_after_judgement(self, *, pause_s: float = 0.02) -> None:
        """Let the load flow again."""
        self.load.flowing = True
        self.load.begin(pause_s=pause_s)

    def stop(self) -> None:
        """End everything, in good order."""
        self.load.stop_modality()
        for sending in self.load.running:
            sending.part.end()
        for part in (self.site.agent, self.site.gateway, *self.site.nodes):
            part.send(signal.SIGCONT)
            code = part.end(signal.SIGTERM)
            if code not in (0, None) and part.name not in self.excused:
                self.totals.note("the end", [f"{part.name} ended with {code}: {part.tail()}"])


@contextlib.contextmanager
def open_running(site: Site, work: Path, journal: Journal, totals: Totals, **load: Any) -> Iterator[Running]:
    """Start the parts of a site, and stop them at the end; the load begins with the first `tend`."""
    warm()
    running = Running(site, Load(site, work, journal, totals, **load), work, totals)
    try:
        running.tend_parts()
        yield running
    finally:
        running.stop()
    more, by_modality = totals.more, len(running.load.by_modality)
    sent = len(running.load.acknowledged) - by_modality
    more["acknowledged_by_send"] = more.get("acknowledged_by_send", 0) + sent
    more["acknowledged_by_c_store"] = more.get("acknowledged_by_c_store", 0) + by_modality
    more["slowest_send_s"] = max(more.get("slowest_send_s", 0.0), round(running.load.slowest_s, 1))
    more["commands_that_failed"] = more.get("commands_that_failed", {}) | running.load.failed
