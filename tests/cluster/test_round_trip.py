"""Everything that goes in comes out bit for bit, on 1, 5 and 30 nodes, and twice the same goes once."""

import shutil
from pathlib import Path

import pydicom
import pytest

from bench.cluster import Cluster
from bench.generate import write_series
from tests.cluster.conftest import Opener
from tests.cluster.harness import assert_holds, assert_sent, contents, digest, objects_on_disk

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_real_images_come_back_as_they_were(fresh: Opener, real_data: Path, tmp_path: Path) -> None:
    sources = [real_data / "ct_head", real_data / "sts"]
    with fresh(nodes=5) as cluster:
        first = cluster.run("send", *sources)
        assert first.code == 0, first
        again = cluster.run("send", *sources)
        assert again.code == 0
        files = first.summary["objects"] + first.summary["skipped"]
        assert (again.summary["objects"], again.summary["skipped"]) == (0, files)
        assert cluster.run("get", "--all", tmp_path / "out").code == 0
        dicom = {found for source in sources for found in contents(source)} - _not_dicom(sources)
        assert set(contents(tmp_path / "out")) == dicom


def _not_dicom(sources: list[Path]) -> set[str]:
    files = (path for source in sources for path in source.rglob("*") if path.is_file())
    return {digest(path) for path in files if path.read_bytes()[128:132] != b"DICM"}


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (5, 2), (30, 1)])
def test_a_series_comes_back_from_any_number_of_nodes(fresh: Opener, tmp_path: Path, nodes: int, replicas: int) -> None:
    write_series(tmp_path / "in", 60, seed=nodes, rows=200, columns=200)
    with fresh(nodes=nodes, replicas=replicas) as cluster:
        assert_sent(cluster.run("send", tmp_path / "in"), objects=60)
        assert_sent(cluster.run("send", tmp_path / "in"), objects=0, skipped=60)
        assert_holds(cluster, [tmp_path / "in"], tmp_path / "out")
        assert len(objects_on_disk(cluster)) == 60 * replicas


def test_one_study_series_or_object_can_be_asked_for(cluster: Cluster, tmp_path: Path, series: Path) -> None:
    assert_sent(cluster.run("send", series), objects=8)
    head = pydicom.dcmread(next(series.iterdir()))
    for flag, value in (("--study", head.StudyInstanceUID), ("--series", head.SeriesInstanceUID)):
        assert cluster.run("get", flag, value, tmp_path / flag.strip("-")).code == 0
        assert contents(tmp_path / flag.strip("-")) == contents(series)


def test_verify_finds_everything_sound_and_an_altered_byte_not(fresh: Opener, series: Path) -> None:
    with fresh(nodes=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        assert cluster.run("verify", "--deep").code == 0
        stored = objects_on_disk(cluster)[0]
        data = bytearray(stored.read_bytes())
        data[-1] ^= 1
        stored.chmod(0o600)
        stored.write_bytes(data)
        assert cluster.run("verify", "--deep").code == 1


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is down"])
def test_two_replicas_survive_the_loss_of_a_nodes_folder(
    fresh: Opener, tmp_path: Path, series: Path, running: bool
) -> None:
    with fresh(nodes=3, replicas=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        if running:
            shutil.rmtree(cluster.data / "nodes" / "node-2")
            assert_holds(cluster, [series], tmp_path / "out")
    if running:
        return
    shutil.rmtree(tmp_path / "cluster" / "data" / "nodes" / "node-2")
    with fresh(nodes=3, replicas=2) as cluster:
        assert_holds(cluster, [series], tmp_path / "out")
