"""The loads, small and quick: that nothing is lost and all who wait are served; how fast is for `make load` to say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.load.results import Results, percentiles

ROOT = Path(__file__).parents[2]


def load(*words: object) -> dict[str, Any]:
    """Run a load; return its result, printed too so that a failing test shows it."""
    command = [sys.executable, "-m", "tests.load", *map(str, words), "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    print(" ".join(command[1:]), done.stdout, done.stderr, sep="\n")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def broken(result: dict[str, Any]) -> list[str]:
    """Return what is wrong, whatever else this machine has to do."""
    slow = (": goodput ", ": {'count'")
    return [problem for problem in result["problems"] if not any(word in problem for word in slow)]


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_an_idle_crowd_stops_nobody() -> None:
    result = load("idle")
    assert broken(result) == []
    assert result["node"]["crowd"]["opened"] >= 1200
    assert result["agent"]["crowd"]["closed_on_us"] > 0
    assert result["node"]["crowded_s"]["count"] >= 4
    assert result["objects"] > 0
    assert result["instances"] > 0


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_all_who_were_told_to_come_back_are_served() -> None:
    result = load("overload", "--with", "ports=node+gateway+agent")
    assert broken(result) == []
    assert min(result[name]["refused"] for name in ("node", "gateway", "agent")) > 0


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_parts_serve_again_after_they_were_killed() -> None:
    result = load("restart")
    assert broken(result) == []
    assert [result[name]["count"] for name in ("gateway", "node", "agent")] == [2, 2, 2]


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentiles([float(number) for number in range(1, 101)]) == {"count": 100, "p50": 51, "p99": 99, "max": 100}
    assert percentiles([3.0]) == {"count": 1, "p50": 3.0, "p99": 3.0, "max": 3.0}


def test_what_is_wanted_and_is_not_so_is_kept(tmp_path: Path) -> None:
    results = Results("idle", 7, figures={"count": 3})
    results.want(True, "never seen")
    results.want(False, "too slow")
    kept = json.loads(results.keep(tmp_path, {}).read_text())
    assert (kept["load"], kept["seed"], kept["count"], kept["problems"]) == ("idle", 7, 3, ["too slow"])
    assert {"kernel", "processors", "commit"} <= set(kept["machine"])
