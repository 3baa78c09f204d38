"""Judges a cluster that an interrupted campaign left, by its journal alone.

`python -m tests.faults.real.cluster.rejudge WORK`; WORK is what the campaign was given as `--work`. The cluster is
started on what is there, and everything in the journal must be there. Prints the totals. Refuses to do: more faults.
"""

import json
import logging
import sys
from pathlib import Path

import structlog

from tests.faults.real.cluster.load import FOLDER
from tests.faults.real.cluster.running import open_running
from tests.faults.real.cluster.site import Site
from tests.faults.real.journal import Journal, read_journal
from tests.faults.real.totals import Totals


def main(work: Path, replicas: int = 2) -> int:
    """Judge; return the exit code."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    totals = Totals("rejudge", 0)
    promised = set(read_journal(work / "journal")[FOLDER])
    nodes = len(list((work / "data/nodes").iterdir()))
    site = Site(work / "data", nodes=nodes, replicas=replicas)
    with (
        Journal(work / "journal-of-judgement") as journal,
        open_running(site, work, journal, totals, at_once=0, count=0) as now,
    ):
        now.load.acknowledged = promised
        totals.acknowledged = len(promised)
        now.judge("what was left", whole=True)
    print(json.dumps(totals.result()))
    return 1 if totals.problem_count else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
