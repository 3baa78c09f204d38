"""50 000 inputs of a fixed seed in a process of its own: no crash, no hang, no growth; `make fuzz` does more."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.fuzz import seeds, targets
from tests.fuzz.__main__ import Watch, fuzz
from tests.fuzz.targets import SHARES, TARGETS
from transfer.dicom import check_complete

ROOT = Path(__file__).parents[2]
COUNT = 50_000
GROWTH_BYTES = 256 << 20


@pytest.mark.timeout(600)
def test_fifty_thousand_inputs_do_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--count", str(COUNT), "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["inputs"] == COUNT
    assert found["targets"].keys() == SHARES.keys()
    assert found["slowest_s"] < 10
    assert all(each["grown_bytes"] < GROWTH_BYTES for each in found["targets"].values())


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_there_and_passes(target: str) -> None:
    corpus = seeds.read(target)
    assert set(seeds.SEEDS[target]().values()) <= set(corpus)
    for data in corpus:
        TARGETS[target](data)


def test_the_corpus_is_what_it_should_be_before_it_is_damaged() -> None:
    """A fuzzer whose inputs are all refused at the first byte finds nothing: these must be taken."""
    kinds = {name: targets._converse(data, len(data)) for name, data in seeds.frames().items()}
    assert [kind for kind in kinds if kinds[kind][1] not in ("", "protocol")] == []
    assert len(kinds["put"][0]) == 4
    refused = {name: targets._outcome(partial(check_complete, data)) for name, data in seeds.dicom().items()}
    assert [name for name, outcome in refused.items() if isinstance(outcome, str)] == []
    assert targets._is_signed(seeds.TICKET, seeds.TICKET[:-64])
    spool = targets._Spool()
    said = trio.run(targets._associate, seeds.association()["stores"], spool)
    assert targets._successes(said) == len(spool.kept) == 2


def test_a_crash_is_told_and_its_input_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "CORPUS", tmp_path)
    (tmp_path / "pdu").mkdir()
    (tmp_path / "pdu/seed").write_bytes(b"abc" * 50)

    def fragile(data: bytes) -> None:
        if not data.startswith(b"abc"):
            raise IndexError

    with pytest.raises(IndexError):
        fuzz("pdu", fragile, 1000, 1, Watch())
    (found,) = tmp_path.glob("pdu/found-*")
    assert not found.read_bytes().startswith(b"abc")
    with pytest.raises(IndexError):
        fuzz("pdu", fragile, 0, 2, Watch())  # every later run begins with it
