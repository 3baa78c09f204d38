"""A running cluster whose catalogue is lost, or comes back as an older copy, under load.

The gateway must notice by itself: it does not serve, and its message names `fascicle gateway rebuild`. That command,
with the nodes running, is the one step that is documented (docs/operations.md), and the only one taken here. After it
everything that was ever acknowledged is listed again. Refuses to do: losing what nodes hold.
"""

import contextlib
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.audit import log_path
from gateway.catalogue_age import last_commits, line_count
from tests.faults.real.cluster.running import Running

WAIT_S: Final = (0.0, 3.0)  # 0: the copy has as open what is committed when it comes back
KINDS: Final = ("lost", "old")
REFUSED: Final = 2  # SettingsError.exit_code
WORDS: Final = {"lost": "is lost", "old": "is older than"}
ENDED_S: Final = 60.0


class Catalogue:
    """Loses the catalogue of a running cluster; `counts` by what happened to it."""

    def __init__(self, running: Running, work: Path, seed: int) -> None:
        self._running, self._work, self._seed = running, work, seed
        self._file = running.site.data / "gateway/catalogue.db"
        self._trail = log_path(running.site.data / "gateway")
        self.counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.rebuilt_s_max = 0.0

    def lose(self, number: int) -> None:
        """Let loss `number` happen, and heal it."""
        chance = random.Random(f"{self._seed} {number}")
        kind = KINDS[number % len(KINDS)]
        old, known, lines = self._work / "old.db", set[str](), 0
        if kind == "old":
            self._running.go_on(chance.uniform(*WAIT_S))
            lines = line_count(self._trail)
            _copy(self._file, old)
            known = _commits(old)
        self._go_on_until_told_of(known, lines, chance.uniform(*WAIT_S))
        gateway = self._running.site.gateway
        self._running.held.add(gateway.name)
        self._running.excused.add(gateway.name)
        gateway.end(signal.SIGKILL)
        for path in self._file.parent.glob("catalogue.db*"):
            path.unlink()
        if kind == "old":
            old.rename(self._file)
        problems = self._problems_of_start(kind)
        before_s = time.monotonic()
        problems += self._rebuild("--keep-aside" if kind == "old" else "")
        self.rebuilt_s_max = max(self.rebuilt_s_max, round(time.monotonic() - before_s, 2))
        self._running.held.discard(gateway.name)
        self.counts[kind] += 1
        self._running.totals.note(f"catalogue {kind}, {number}", problems)

    def _go_on_until_told_of(self, known: set[str], lines: int, seconds: float) -> None:
        """Let the trail tell of a commit beyond the `known` ones and its first `lines`.

        One that is in the catalogue alone was not answered for yet: to lose it is no loss, and nothing to notice.
        """
        deadline_s = time.monotonic() + ENDED_S
        self._running.go_on(seconds)
        while all(line.n <= lines or line.transfer_id in known for line in last_commits(self._trail)):
            assert time.monotonic() < deadline_s, "nothing is committed any more"
            self._running.go_on(0.05)

    def _problems_of_start(self, kind: str) -> list[str]:
        """Start the gateway as a supervisor would: it must say what is wrong, and not serve."""
        gateway = self._running.site.gateway
        gateway.log.rename(gateway.log.with_suffix(f".{time.monotonic_ns()}"))
        gateway.start()
        code = self._wait(gateway.ended)
        told = gateway.tail()
        if code == REFUSED and WORDS[kind] in told and "fascicle gateway rebuild" in told:
            return []
        gateway.end(signal.SIGKILL)
        return [f"not noticed: {code} {told}"]

    def _rebuild(self, *words: str) -> list[str]:
        config = self._running.site.gateway_config
        given = [word for word in words if word]
        part = self._running.site.part("rebuild", "gateway", "rebuild", "--config", config, "--json", *given)
        part.log.unlink(missing_ok=True)
        part.start()
        code = self._wait(part.ended)
        return [] if code == 0 else [f"rebuild: {code} {part.tail()}"]

    def _wait(self, ended: Callable[[], int | None]) -> int | None:
        deadline_s = time.monotonic() + ENDED_S
        while (code := ended()) is None and time.monotonic() < deadline_s:
            self._running.tend()
            time.sleep(0.01)
        return code


def _commits(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as link:
        return {row[0] for row in link.execute("SELECT transfer_id FROM \"transfer\" WHERE state = 'committed'")}


def _copy(database: Path, target: Path) -> None:
    """Copy it as docs/operations.md says, while it is in use."""
    target.unlink(missing_ok=True)
    source, copy = sqlite3.connect(f"file:{database}?mode=ro", uri=True), sqlite3.connect(target)
    source.backup(copy)
    copy.close()
    source.close()
