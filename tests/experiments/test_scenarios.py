"""Short real runs of what a plain run does not show: a cut link, a killed sender, a study that overtakes."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments import overtaking, resume, workload
from experiments.links import open_link
from experiments.overtaking import overtake
from experiments.profiles import parse_own
from experiments.resume import MIB, Finding
from experiments.scenario import open_place
from nodes import credit, objectfile
from tests.experiments.test_links import needs_namespaces, ours

FOUND = Finding(
    sent="images",
    broken="cut",
    nodes=1,
    size_bytes=100 * MIB,
    wire_bytes=103 * MIB,
    retransmitted_bytes=0,
    kept_bytes=40 * MIB,
    after_bytes=61 * MIB,
    flows=4,
    window_bytes=8 * MIB,
)


def test_the_window_is_the_one_that_a_node_gives() -> None:
    assert [resume.window_bytes(flows) for flows in range(60)] == [credit.window_bytes(flows) for flows in range(60)]
    assert resume.OBJECT_HEADER_BYTES == objectfile.HEADER_BYTES


def test_what_was_sent_again_and_what_of_it_was_kept() -> None:
    assert (FOUND.resent_bytes, FOUND.kept_resent_bytes) == (3 * MIB, MIB)
    assert FOUND.met
    assert not replace(FOUND, window_bytes=2 * MIB).met
    assert (
        "3.00 MiB of 100.00 MiB sent again (1.00 MiB of it kept by a node), allowed 8.00 MiB, one window (4 flows)"
        in FOUND.text()
    )


def test_a_study_is_in_time_or_not_whatever_its_own_bytes_take() -> None:
    found = overtaking.Finding("ct", 10_000_000, 900_000, 3.8, 4.9, 6.0, True, 40, 30.0)
    assert found.met
    assert not replace(found, overtook=False).met
    late = replace(found, least_s=8.4, seconds=10.0)
    assert not late.met
    assert "1.6 s more than its bytes take alone; wanted 5.0 s" in late.text()
    assert late.text().endswith("not met")


@needs_namespaces
@pytest.mark.cluster
@pytest.mark.parametrize(("sent", "broken"), [("object", "cut"), ("images", "killed")])
def test_a_broken_transfer_sends_little_again(sent: str, broken: str, tmp_path: Path) -> None:
    files = resume.write(tmp_path / "files", sent, images=40, object_mb=32)
    with open_link(parse_own("60M", "4ms", "")) as link, open_place(link, tmp_path, nodes=1) as place:
        found = resume.break_transfer(place, files, sent, broken)
    assert found.window_bytes < found.size_bytes / 2, "what went before could not be more than a window"
    assert found.kept_bytes > 0
    assert found.met, found.text()
    assert found.resent_bytes >= 0
    assert ours() == []


@needs_namespaces
@pytest.mark.cluster
def test_a_study_overtakes(tmp_path: Path) -> None:
    workload.GENERATED["paper"].write(tmp_path / "bulk", objects=12, seed=1)
    with open_link(parse_own("8M", "10ms", "")) as link, open_place(link, tmp_path, nodes=2) as place:
        found = overtake(place, overtaking.GENERATED, under_way_s=2.0)
    assert found.overtook
    assert (found.bulk_objects, found.met) == (12, True), found.text()
    assert ours() == []
