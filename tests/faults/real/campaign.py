"""Fault campaigns on the real system: `python -m tests.faults.real.campaign NAME [OPTIONS]`, names in `CAMPAIGNS`.

Prints one JSON object with the totals and exits with 1 when anything was wrong. A process of its own, without threads,
because its children are forked. Everything is drawn from the seed; a run that found something is named by its number,
and `--first NUMBER --count 1` does it again (moments are drawn in promises and microseconds: the same place, not the
same instruction).
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import structlog

from nodes.store import Store
from tests.faults.real.broken import BROKEN
from tests.faults.real.catalogue_role import CATALOGUE
from tests.faults.real.corruption import Corruption
from tests.faults.real.full import Full
from tests.faults.real.journal import Journal
from tests.faults.real.lives import Lives
from tests.faults.real.loop import open_disk, reason_against
from tests.faults.real.role import Role
from tests.faults.real.spool_role import SPOOL
from tests.faults.real.store_role import STORE
from tests.faults.real.sweep import Sweep
from tests.faults.real.totals import Totals
from tests.faults.real.traced import Point, run

ROLES: Final = {role.name: role for role in (STORE, SPOOL, CATALOGUE)}
MEMORY: Final = Path("/dev/shm")
DISK_MIB: Final = 512
LIVES_COUNT: Final = 200
CHANGES_COUNT: Final = 1000
FULL_COUNT: Final = 60


def main(words: list[str]) -> int:
    """Run one campaign."""
    chosen = _arguments().parse_args(words)
    # What is broken on purpose fills logs, and standard output is for the totals.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    totals = Totals(chosen.campaign, chosen.seed)
    if chosen.broken:
        BROKEN[chosen.broken]()
    roles = [ROLES[name] for name in chosen.role.split(",")]
    # In memory where there is some: what survives is then what a loop device got, and no other load slows it down.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="fascicle-faults-") as work:
        CAMPAIGNS[chosen.campaign](chosen, roles, Path(work), totals)
    result = totals.result()
    if chosen.out:
        result["kept"] = str(totals.keep(Path(chosen.out), vars(chosen)))
    print(json.dumps(result))
    return 1 if totals.problem_count else 0


def sweep(chosen: argparse.Namespace, roles: list[Role], work: Path, totals: Totals) -> None:
    """Every point of each role; with `--count`, so many from `--first` on."""
    reason = reason_against()
    totals.more |= {"without": reason, "faults": {}}
    with ExitStack() as stack:
        disk = None if reason else stack.enter_context(open_disk(work / "disk"))
        journal = stack.enter_context(Journal(chosen.journal or work / "journal"))
        folder = disk.folder if disk else work / "plain"
        folder.mkdir(exist_ok=True)
        for role in roles:
            _warm(role, work / f"warm-{role.name}")
            each = Sweep(role, folder=folder, outside=work, disk=disk, journal=journal, totals=totals)
            points = [point for point in each.points() if _is_chosen(point, chosen)]
            totals.more[role.name] = len(points)
            for point in points:
                totals.more["faults"][point.fault] = totals.more["faults"].get(point.fault, 0) + 1
            for point in points[chosen.first :][: chosen.count]:
                each.try_point(point)


def full(chosen: argparse.Namespace, roles: list[Role], work: Path, totals: Totals) -> None:
    """So many disks that are full, from `--first` on."""
    with Journal(chosen.journal or work / "journal") as journal:
        (work / "full").mkdir()
        for role in roles:
            _warm(role, work / f"warm-{role.name}")
        each = Full(roles, folder=work / "full", journal=journal, totals=totals)
        for number in range(chosen.first, chosen.first + (chosen.count or FULL_COUNT)):
            each.fill(number)


def _is_chosen(point: Point, chosen: argparse.Namespace) -> bool:
    return chosen.fault in ("", point.fault) and chosen.call in ("", point.call)


def _warm(role: Role, folder: Path) -> None:
    """Import and compile in the parent what each child would; what that leaves is forgotten."""
    if role.warm:
        role.prepare(folder)
        role.batch(folder, lambda _: None)
    else:
        run(lambda _: role.prepare(folder))


def lives(chosen: argparse.Namespace, roles: list[Role], work: Path, totals: Totals) -> None:
    """`kills` and `cuts`: so many lives, from `--first` on."""
    with ExitStack() as stack:
        disk = stack.enter_context(open_disk(work / "disk", DISK_MIB)) if chosen.campaign == "cuts" else None
        journal = stack.enter_context(Journal(chosen.journal or work / "journal"))
        folder = disk.folder if disk else work / "plain"
        folder.mkdir(exist_ok=True)
        for role in roles:
            _warm(role, work / f"warm-{role.name}")
        each = Lives(roles, folder=folder, disk=disk, journal=journal, totals=totals)
        for number in range(chosen.first, chosen.first + (chosen.count or LIVES_COUNT)):
            each.live(number)
        each.finish()
        totals.more["journal"] = journal.count


def corruption(chosen: argparse.Namespace, _: list[Role], work: Path, totals: Totals) -> None:
    """So many changes to stored objects, from `--first` on."""
    with Journal(chosen.journal or work / "journal") as journal, Store.open(work / "store", 0) as store:
        each = Corruption(store, journal, totals)
        for number in range(chosen.first, chosen.first + (chosen.count or CHANGES_COUNT)):
            each.corrupt(number)
        each.finish()


CAMPAIGNS: Final[dict[str, Callable[[argparse.Namespace, list[Role], Path, Totals], None]]] = {
    "sweep": sweep,
    "kills": lives,
    "cuts": lives,
    "corruption": corruption,
    "full": full,
}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.real.campaign", description=__doc__)
    parser.add_argument("campaign", choices=sorted(CAMPAIGNS))
    parser.add_argument("--role", default=",".join(ROLES), help="some of them, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--count", type=int, default=None, help="how many runs")
    parser.add_argument("--fault", default="", help="sweep: this one alone (kill, cut, EIO, ENOSPC, short)")
    parser.add_argument("--call", default="", help="sweep: this system call alone")
    parser.add_argument("--broken", choices=sorted(BROKEN), default="", help="break it on purpose: must be noticed")
    parser.add_argument("--out", default="", help="keep a results file in this folder")
    parser.add_argument("--journal", type=Path, default=None, help="keep the acknowledgements in this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
