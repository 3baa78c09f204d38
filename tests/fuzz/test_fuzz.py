"""50 000 inputs of a fixed seed in a process of its own: no crash, no hang, no growth; `make fuzz` does more."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.fuzz import seeds, targets, texts
from tests.fuzz.campaign import begin, parts_of, run
from tests.fuzz.running import Watch, fuzz
from tests.fuzz.targets import SHARES, TARGETS, open_target
from tests.gateway.routes import routes
from transfer.dicom import check_complete
from transfer.encodings import IMAGE_ENCODINGS

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


@pytest.mark.parametrize("name", [*TARGETS, "image"])
def test_the_corpus_is_there_and_passes(name: str) -> None:
    corpus, made = seeds.read(name), seeds.SEEDS[name]()
    assert name == "image" or set(made.values()) <= set(corpus)  # other versions of encoders write other bytes
    assert len(corpus) >= len(made)
    with open_target(name) as target:
        for data in corpus:
            target(data)


def test_there_is_an_input_for_every_route() -> None:
    made = seeds.http()
    for method, path, _ in routes():
        beginning = f"{method} {path.split('{')[0]}".encode()
        assert any(data.startswith(beginning) for data in made.values()), path


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
    assert texts.trail.verify(seeds.audit()["three"].splitlines(keepends=True), texts.KEY.public_key()).count == 3
    assert texts.decode_token(seeds.token()["token"].decode()).role == "node"


@pytest.mark.parametrize("name", sorted(seeds.image()))
def test_images_of_the_corpus_decode_by_the_encoding_that_they_name(name: str) -> None:
    """The number in front is a place in a list: if that has changed, all inputs are refused at once."""
    data = (seeds.CORPUS / "image" / name).read_bytes()
    number, size_bytes = texts.IMAGE_HEAD.unpack_from(data)
    assert name.endswith(f"-{texts.NAMES[number]}")
    decoder = IMAGE_ENCODINGS[texts.NAMES[number]].decoder(size_bytes)
    assert sum(memoryview(block).nbytes for block in decoder.feed(data[texts.IMAGE_HEAD.size :])) == size_bytes


def test_parts_make_up_the_count_and_are_not_run_twice(tmp_path: Path) -> None:
    for count in (50_000, 5_000_000):
        assert sum(inputs for _, _, inputs in parts_of(count, list(SHARES))) == count
    path = tmp_path / "fuzz.json"
    first = run(400, ["token"], 3, 1, path)
    assert (first["inputs"], first["seed"], first["targets"]["token"]["inputs"]) == (400, 3, 400)
    kept = json.loads(path.read_text())
    assert kept["inputs"] == 400
    assert run(400, ["token"], 3, 1, path)["seconds"] == first["seconds"]  # nothing was left to do
    assert begin(path, 4)["parts"] == {}
    path.write_text(json.dumps(kept | {"commit": "another"}))
    assert begin(path, 3)["parts"] == {}


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
