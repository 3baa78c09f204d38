"""The short fault campaigns on a whole running cluster; `make faults FAULTS=cluster-kills COUNT=...` runs one long.

They wait more than they compute, so all of them run at once, each a process of its own with a cluster of its own; their
totals are judged one by one.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import pytest

from tests.faults.real.loop import reason_against

ROOT = Path(__file__).parents[2]
NO_CUTS = reason_against()
LACKING = [name for name in ("ip", "nft") if not which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")]
NO_NETS = NO_CUTS or (f"networks need {' and '.join(LACKING)} (iproute2, nftables)" if LACKING else "")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
COUNTS = {
    "cluster-kills": 10,
    "cluster-cuts": 3,
    "rot": 6,
    "catalogue": 1,
    "partitions": 2,  # the second loses packets
    "upgrades": 1,
    "clocks": 1,
    "damage": 2,
}
IMPOSSIBLE = {"cluster-cuts": NO_CUTS, "partitions": NO_NETS}


class Run(NamedTuple):
    """A campaign that runs, and its journal."""

    process: "subprocess.Popen[str]"
    journal: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Start every campaign that can be run here."""
    folder = tmp_path_factory.mktemp("campaigns")
    started = {}
    for name, count in COUNTS.items():
        if not IMPOSSIBLE.get(name):
            journal = folder / f"{name}.journal"
            words = [sys.executable, "-m", "tests.faults.real.campaign", name, "--count", str(count), "--first", "1"]
            process = subprocess.Popen([*words, "--journal", str(journal)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            started[name] = Run(process, journal)
    yield started
    for run in started.values():
        run.process.kill()
        run.process.communicate()


@pytest.mark.parametrize("name", COUNTS)
def test_a_running_cluster_keeps_what_it_acknowledged(runs: dict[str, Run], name: str) -> None:
    if name not in runs:
        pytest.skip(IMPOSSIBLE[name])
    output, _ = runs[name].process.communicate(timeout=280)
    print(name, output)
    totals: dict[str, Any] = json.loads(output)
    assert (totals["problems"], totals["problem_count"], runs[name].process.returncode) == ([], 0, 0)
    assert totals["fired"] >= COUNTS[name]
    assert totals["acknowledged"] == len(runs[name].journal.read_text().splitlines()) > 50
