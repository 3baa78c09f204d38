"""Full disks: a part works on a tmpfs of a few pages to a few MiB, and goes on when there is room.

Writes come short and calls fail wherever the room happens to end. What was promised must be there, nothing half done
may be visible, no process may crash, and with more room the same part, opened again, takes everything. Refuses to do:
the reserve, which would keep a part from ever seeing this (`reserve_bytes` is 0 here).
"""

import random
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

from tests.faults.real.forks import ENDED
from tests.faults.real.journal import Acknowledged, Journal
from tests.faults.real.loop import leave_mount_namespace
from tests.faults.real.role import Role
from tests.faults.real.sweep import again, judge, problems_of
from tests.faults.real.totals import Totals
from tests.faults.real.traced import run

PAGE_BYTES: Final = 4096
PAGES_MIN, PAGES_MAX = 20, 600  # the batches take 150 to 600
ROOM: Final = "size=64m"


class Full:
    """Fills a tmpfs at `folder` with one part after the other."""

    def __init__(self, roles: list[Role], *, folder: Path, journal: Journal, totals: Totals) -> None:
        self._roles, self._folder = roles, folder
        self._journal, self._totals = journal, totals
        leave_mount_namespace()

    def fill(self, number: int) -> None:
        """Do run `number` of the seed."""
        chance = random.Random(f"{self._totals.seed} {number}")
        role = self._roles[number % len(self._roles)]
        pages = round(PAGES_MIN * (PAGES_MAX / PAGES_MIN) ** chance.random())
        _mount("-t", "tmpfs", "-o", f"size={pages * PAGE_BYTES}", "tmpfs", self._folder)
        try:
            problems = self._fill(role, self._folder / role.name)
        finally:
            subprocess.run(["umount", str(self._folder)], check=True)
        self._totals.runs += 1
        self._totals.count_run_of(role.name)
        self._totals.note(f"run {number} of {role.name}, {pages} pages", problems)

    def _fill(self, role: Role, folder: Path) -> list[str]:
        prepared = run(lambda _: role.prepare(folder))
        ended = run(partial(role.batch, folder))
        self._totals.fired += bool(ended.refused() or ended.errors() or prepared.errors())
        promised = ended.promised()
        _mount("-o", f"remount,{ROOM}", self._folder)
        problems = ended.problems() + (prepared.problems() if prepared.code != ENDED else [])
        problems += judge(role, folder, promised, self._totals)
        second = again(role, folder, promised)
        problems += problems_of(second) + second.errors()
        promised |= second.promised()
        self._journal.note(Acknowledged(role.name, key, seed) for key, seed in promised.items())
        self._totals.acknowledged += len(promised)
        return problems


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)
