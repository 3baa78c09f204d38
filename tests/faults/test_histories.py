"""5 000 histories keep every promise; each replays; each mistake put in on purpose is noticed."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.histories.__main__ import campaign, main
from tests.faults.histories.campaign import run_histories, run_history
from tests.faults.histories.mutants import MUTANTS, applied, first_seed_that_notices
from tests.faults.histories.world import Violation

ROOT = Path(__file__).parents[2]
COUNT = 5_000
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_histories_keep_every_promise(part: int) -> None:
    size = COUNT // PARTS
    total = run_histories(range(part * size, (part + 1) * size))
    assert total["histories"] == size
    assert total["power cuts"] > 2 * size, "every one ends in at least one"
    assert total["kills"] > size // 3 and total["acknowledged"] > 2 * size, "and does something before"
    assert total["faults"] > size // 2 and total["spoiled"] > size // 10


def test_a_history_replays_to_the_letter_in_another_process() -> None:
    for seed in (3, 4, 5, 6):
        lines: list[str] = []
        total = run_history(seed, lines.append)
        command = [sys.executable, "-m", "tests.faults.histories", "--seed", str(seed)]
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        assert again == [*lines, str(dict(total))]
        assert len(lines) > 20


def test_commits_overlap() -> None:
    """One writes its files while another flushes and renames, or concurrency would not be tried."""
    overlaps = 0
    for seed in range(200):
        lines: list[str] = []
        run_history(seed, lines.append)
        calls = [line.split()[0] for line in lines if line.startswith("    ")]
        overlaps += sum(
            first in ("rename", "syncfs", "fdatasync") and second in ("create", "pwrite")
            for first, second in itertools.pairwise(calls)
        )
    assert overlaps > 5


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name: str) -> None:
    found = first_seed_that_notices(name, range(COUNT))
    assert found is not None, "these histories do not see this mistake"
    seed, violation = found
    assert f"seed {seed}:" in str(violation)
    run_history(seed)  # without the mistake the same history keeps its promises


def test_mutants_are_taken_back() -> None:
    for name, replaced in MUTANTS.items():
        before = [getattr(owner, attribute) for owner, attribute, _ in replaced]
        with applied(replaced):
            assert [getattr(owner, attribute) for owner, attribute, _ in replaced] != before, name
        assert [getattr(owner, attribute) for owner, attribute, _ in replaced] == before


def test_a_campaign_writes_down_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "out" / "results.json"
    first = random.Random(1).randrange(10**6)
    assert campaign(range(first, first + 20), 1, results) == 0
    written = json.loads(results.read_text())
    assert (written["first_seed"], written["seeds"], written["broken"]) == (first, 20, [])
    assert written["totals"]["histories"] == 20
    assert {"commit", "machine", "at", "seconds"} <= written.keys()
    assert "broken: 0" in capsys.readouterr().out


def test_a_broken_promise_fails_the_replay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    name = "names are not flushed"
    found = first_seed_that_notices(name, range(100))
    assert found is not None
    monkeypatch.setattr(sys, "argv", ["histories", "--seed", str(found[0])])
    with applied(MUTANTS[name]):
        assert main() == 1
        with pytest.raises(Violation, match=f"seed {found[0]}:"):
            run_histories([found[0]])
    assert f"seed {found[0]}:" in capsys.readouterr().out
