"""The short fault campaigns on the real system; `make faults COUNT=...` runs them long.

Each is a process of its own, whose totals are judged here: how much was broken, and that nothing was wrong after it.
"""

import json
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.faults.real.loop import reason_against

ROOT = Path(__file__).parents[2]
NO_CUTS = reason_against()
needs_cuts = pytest.mark.skipif(bool(NO_CUTS), reason=NO_CUTS or "there are power cuts here")
needs_strace = pytest.mark.skipif(which("strace") is None, reason="the sweep needs strace")
pytestmark = pytest.mark.timeout(600)


def campaign(*words: object, code: int = 0) -> dict[str, Any]:
    """Run a campaign; return its totals, printed too so that a failing test shows its seed and what was wrong."""
    command = [sys.executable, "-m", "tests.faults.real.campaign", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    print(" ".join(command[1:]), done.stdout, done.stderr, sep="\n")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@needs_strace
def test_no_system_call_of_the_store_can_fail_or_be_its_last_and_lose_anything(tmp_path: Path) -> None:
    totals = campaign("sweep", "--role", "store", "--journal", tmp_path / "journal")
    assert totals["runs"] == totals["fired"] == totals["store"] > 200
    expected = {"kill", "EIO", "ENOSPC", "short"} | (set() if NO_CUTS else {"cut"})
    assert {fault for fault, count in totals["faults"].items() if count > 10} == expected
    assert (totals["problems"], totals["problem_count"]) == ([], 0)
    assert len((tmp_path / "journal").read_text().splitlines()) >= totals["acknowledged"] > totals["runs"]


@needs_strace
@pytest.mark.parametrize(
    ("role", "every"), [("spool", 19), ("queue", 101), ("catalogue", 67), ("audit", 13), ("keyfiles", 31)]
)
def test_system_calls_of_the_other_parts_may_fail_or_be_the_last(role: str, every: int, tmp_path: Path) -> None:
    """Some of them, spread out; `make faults FAULTS=sweep COUNT=1` tries them all."""
    totals = campaign("sweep", "--role", role, "--every", every, "--journal", tmp_path / "journal")
    assert totals["runs"] == -(-totals[role] // every) >= 8
    assert totals["fired"] > totals["runs"] / 2  # threads may share the calls of the spool otherwise
    assert (totals["problems"], totals["problem_count"]) == ([], 0)


def test_kills_lose_nothing_that_was_promised(tmp_path: Path) -> None:
    totals = campaign("kills", "--count", 200, "--seed", 1, "--journal", tmp_path / "journal")
    assert (totals["runs"], totals["problems"], totals["problem_count"]) == (200, [], 0)
    assert totals["fired"] == 200
    assert len(totals["runs_of"]) == 6 and min(totals["runs_of"].values()) >= 32
    assert totals["journal"] == totals["acknowledged"] > 1_000


@needs_cuts
def test_power_cuts_lose_nothing_that_was_promised(tmp_path: Path) -> None:
    totals = campaign("cuts", "--count", 200, "--seed", 1, "--journal", tmp_path / "journal")
    assert (totals["runs"], totals["problems"], totals["problem_count"]) == (200, [], 0)
    assert totals["journal"] == totals["acknowledged"] > 1_000


def test_every_corruption_is_found_before_its_last_byte_is_given_out(tmp_path: Path) -> None:
    totals = campaign("corruption", "--count", 1000, "--seed", 1, "--journal", tmp_path / "journal")
    assert (totals["runs"], totals["problems"], totals["problem_count"]) == (1000, [], 0)


@needs_cuts
@pytest.mark.parametrize(
    ("role", "broken"),
    [
        ("store", "without_flush_of_data"),
        ("store", "without_flush_of_names"),
        ("queue", "queue_without_flush"),
        ("audit", "audit_without_flush"),
        ("keyfiles", "without_flush_of_data"),
        ("keyfiles", "without_flush_of_names"),
    ],
)
def test_power_cuts_notice_a_part_that_answers_before_its_flush(role: str, broken: str) -> None:
    totals = campaign("cuts", "--role", role, "--count", 16, "--broken", broken, code=1)
    assert totals["problem_count"] > 0


@needs_strace
@pytest.mark.parametrize(
    ("role", "broken", "every"),
    [("queue", "queue_in_pieces", 29), ("audit", "audit_without_mending", 2), ("keyfiles", "files_in_place", 3)],
)
def test_the_sweep_notices_a_part_that_leaves_halves_behind(role: str, broken: str, every: int) -> None:
    totals = campaign("sweep", "--role", role, "--fault", "kill", "--every", every, "--broken", broken, code=1)
    assert totals["problem_count"] > 0


def test_corruption_notices_a_store_that_does_not_check_what_it_reads() -> None:
    totals = campaign("corruption", "--count", 50, "--broken", "without_check_on_reading", code=1)
    assert any("BAD BYTES SERVED" in problem for problem in totals["problems"])


@needs_strace
def test_the_sweep_notices_a_failed_flush_that_is_tried_again() -> None:
    totals = campaign(
        "sweep", "--role", "store", "--fault", "EIO", "--call", "fdatasync", "--broken", "flush_again", code=1
    )
    assert any("flushed again" in problem for problem in totals["problems"])


def test_full_disks_lose_nothing_that_was_promised_and_go_on_when_there_is_room(tmp_path: Path) -> None:
    if NO_CUTS:
        pytest.skip(f"small file systems are mounted: {NO_CUTS}")
    totals = campaign("full", "--count", 120, "--seed", 1, "--journal", tmp_path / "journal")
    assert (totals["runs"], totals["problems"], totals["problem_count"]) == (120, [], 0)
    assert totals["fired"] > 40


@needs_cuts
@pytest.mark.cluster
def test_a_power_cut_of_a_whole_cluster_loses_nothing_that_was_promised(tmp_path: Path) -> None:
    totals = campaign("whole", "--count", 1, "--seed", 1, "--journal", tmp_path / "journal")
    assert (totals["runs"], totals["problems"], totals["problem_count"]) == (1, [], 0)
    assert totals["acknowledged"] == 40
