"""Fault campaigns on the real system: `python -m tests.faults.real.campaign NAME [OPTIONS]`; `make faults` runs all.

Prints one JSON object with the totals and exits with 1 when anything was wrong. A process of its own, without threads,
because its children are forked. Everything is drawn from the seed; a run that found something is named by its number,
and `--first NUMBER --count 1` does it again (moments are drawn in promises and microseconds: the same place, not the
same instruction; lives in one folder begin at a multiple of 4).
"""

import argparse
import contextlib
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Final

import structlog

from tests.faults.real.audit_role import AUDIT
from tests.faults.real.broken import BROKEN
from tests.faults.real.campaigns import CAMPAIGNS, Task
from tests.faults.real.catalogue_role import CATALOGUE
from tests.faults.real.journal import Journal
from tests.faults.real.keyfiles_role import KEYFILES
from tests.faults.real.queue_role import QUEUE
from tests.faults.real.spool_role import SPOOL
from tests.faults.real.store_role import STORE
from tests.faults.real.totals import Totals

ROLES: Final = {role.name: role for role in (STORE, SPOOL, QUEUE, CATALOGUE, AUDIT, KEYFILES)}
MEMORY: Final = Path("/dev/shm")
PROMISES_SHORT, PROMISES_LONG = 40, 400


def main(words: list[str]) -> int:
    """Run one campaign."""
    chosen = _arguments().parse_args(words)
    # What is broken on purpose fills logs, and standard output is for the totals.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if chosen.broken:
        BROKEN[chosen.broken]()
    totals = Totals(chosen.campaign, chosen.seed)
    # In memory where there is some: what survives is then what a loop device got, and no other load slows it down.
    memory = MEMORY if MEMORY.is_dir() else None
    with contextlib.ExitStack() as stack:
        if chosen.work:
            work = Path(chosen.work)
            work.mkdir(parents=True)
        else:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory, prefix="fascicle-faults-")))
        with Journal(chosen.journal or work / "journal") as journal:
            CAMPAIGNS[chosen.campaign].run(_task(chosen, work, journal, totals))
            totals.more["journal"] = journal.count
    result = totals.result()
    if chosen.out:
        result["kept"] = str(totals.keep(Path(chosen.out), vars(chosen)))
    print(json.dumps(result))
    return 1 if totals.problem_count else 0


def _task(chosen: argparse.Namespace, work: Path, journal: Journal, totals: Totals) -> Task:
    campaign = CAMPAIGNS[chosen.campaign]
    count = chosen.count or (max(1, round(campaign.long * chosen.long)) if chosen.long else campaign.short)
    short_sweep = chosen.campaign == "sweep" and not chosen.long
    names = chosen.role or (STORE.name if short_sweep else ",".join(ROLES))
    return Task(
        roles=[ROLES[name] for name in names.split(",")],
        numbers=range(chosen.first, chosen.first + count),
        work=work,
        journal=journal,
        totals=totals,
        promises_max=PROMISES_LONG if chosen.long else PROMISES_SHORT,
        fault=chosen.fault,
        call=chosen.call,
        every=chosen.every,
    )


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.real.campaign", description=__doc__)
    parser.add_argument("campaign", choices=list(CAMPAIGNS))
    parser.add_argument("--role", default="", help=f"some of {', '.join(ROLES)}, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--count", type=int, default=0, help="how many runs")
    parser.add_argument("--long", type=int, default=0, help="as many kills and power cuts, and the rest in proportion")
    parser.add_argument("--every", type=int, default=1, help="sweep: one point in so many, spread out")
    parser.add_argument("--fault", default="", help="sweep: this one alone (kill, cut, EIO, ENOSPC, short)")
    parser.add_argument("--call", default="", help="sweep: this system call alone")
    parser.add_argument("--broken", choices=list(BROKEN), default="", help="break it on purpose: must be noticed")
    parser.add_argument("--out", default="", help="keep a results file in this folder")
    parser.add_argument("--work", default="", help="work in this new folder, and leave it there")
    parser.add_argument("--journal", default="", help="keep the acknowledgements in this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
