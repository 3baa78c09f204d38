"""The load of a campaign: `fascicle send` of one folder after the other, some at once, and a modality at the agent.

What is acknowledged (exit code 0 and the receipt of a `send`, status 0000 of a C-STORE) is in the journal, flushed,
before anything else happens. A command that failed is given again, as its user would; how often one may fail that
nobody killed is limited. Refuses to do: faults.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Final

from tests.faults.real.cluster import images
from tests.faults.real.cluster.modality import send_for_ever
from tests.faults.real.cluster.parts import Part, command
from tests.faults.real.cluster.site import Site
from tests.faults.real.forks import Child, Say, fork
from tests.faults.real.journal import Acknowledged, Journal
from tests.faults.real.totals import Totals

FAILURES_MAX: Final = 8  # of one command, by its own exit code
SERIES: Final = 1_000_000  # room for the numbers of one seed
MODALITY: Final = 500_000  # its series begin here
FOLDER: Final = "cluster"


class Sending:
    """One `fascicle send` of a folder, until it says that all of it is stored."""

    def __init__(self, number: int, site: Site, work: Path, count: int, words: tuple[str, ...]) -> None:
        self.number, self.source = number, work / f"in-{number}"
        self.names = images.write(self.source, number, count)
        self.out = work / f"send-{number}.log"
        send = command("send", self.source, "--to", site.credentials, "--json", *words)
        self.part = Part(f"send {number}", send, self.out, prepare=site.enter("send"))
        self.failures = 0
        self.began_s = time.monotonic()

    def start(self) -> None:
        """Give the command, anew."""
        self.out.unlink(missing_ok=True)
        self.part.start()

    def is_done(self, code: int) -> bool:
        """Tell whether it said that everything is stored: by its exit code and by its summary."""
        if code != 0:
            return False
        summary = json.loads(self.out.read_text().strip().splitlines()[-1])
        stored = summary["objects"] + summary["skipped"]
        return stored == len(self.names) == summary["receipt"]["objects"] and not summary["failed"]

    def remove(self) -> None:
        """Forget the source, which is somewhere else now."""
        shutil.rmtree(self.source)
        self.out.unlink(missing_ok=True)


class Load:
    """Everything that sends; `acknowledged` has the names, `offered` those that may be there without that."""

    def __init__(
        self,
        site: Site,
        work: Path,
        journal: Journal,
        totals: Totals,
        *,
        at_once: int,
        count: int,
        words: tuple[str, ...] = (),
        first: int = 0,
    ) -> None:
        self._site, self._work, self._journal, self._totals = site, work, journal, totals
        self._at_once, self._count, self._words = at_once, count, words
        self._next = totals.seed * SERIES + first
        self._modality: Child | None = None
        self._modality_series = totals.seed * SERIES + MODALITY + first * 10
        self._modality_pause_s = 0.0
        self.running: list[Sending] = []
        self.acknowledged: set[str] = set()
        self.by_modality: set[str] = set()
        self.slowest_s = 0.0
        self.done = 0
        self.failed: dict[str, int] = {}
        self.flowing = True

    def begin(self, *, pause_s: float = 0.02) -> None:
        """Let the modality send, too."""
        self._modality_pause_s = pause_s
        self._start_modality()

    def tend(self) -> None:
        """Start what is to run, and hear what has ended."""
        for sending in list(self.running):
            code = sending.part.ended()
            if code is not None:
                self._take(sending, code)
        while self.flowing and len(self.running) < self._at_once:
            sending = Sending(self._next, self._site, self._work, self._count, self._words)
            self._next += 1
            self.running.append(sending)
            sending.start()
        self._hear()

    def stop_modality(self) -> None:
        """End it; what it was answered for is known."""
        if self._modality is not None:
            self._modality.kill()
            for message in self._modality.hear_all(5):
                self._promise([message["key"]], message["seed"])
            self._modality.end()
            self._modality = None

    def _start_modality(self) -> None:
        enter = self._site.enter("modality")

        def work(say: Say) -> None:
            if enter is not None:
                enter()
            send_for_ever(self._site.scp_port, self._modality_series, self._modality_pause_s, say)

        self._modality = fork(work)

    def _take(self, sending: Sending, code: int) -> None:
        if sending.is_done(code):
            self._promise(sending.names, sending.number)
            self.slowest_s = max(self.slowest_s, time.monotonic() - sending.began_s)
            self.done += 1
            self.running.remove(sending)
            sending.remove()
            return
        if code >= 0:
            sending.failures += 1
            reason = f"{code}: {sending.part.tail(300)}"
            self.failed[reason[:120]] = self.failed.get(reason[:120], 0) + 1
            if sending.failures == FAILURES_MAX or code not in (0, 1, 3):
                self._totals.note(f"send {sending.number}", [f"does not end well: {reason}"])
        sending.start()

    def _hear(self) -> None:
        while self._modality is not None and (message := self._modality.hear(0)) is not None:
            if "crashed" in message:
                self._totals.note("modality", [message["crashed"]])
            else:
                self._promise([message["key"]], message["seed"])
                self.by_modality.add(message["key"])

    def _promise(self, names: list[str], number: int) -> None:
        self._journal.note(Acknowledged(FOLDER, name, number) for name in names)
        self.acknowledged.update(names)
        self._totals.acknowledged += len(names)
