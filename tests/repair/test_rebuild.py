"""`fascicle gateway rebuild` on real clusters: the same listing and originals, and refusals in place of guesses."""

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest

from bench.cluster import Cluster
from bench.generate import write_series
from tests.cluster.conftest import Opener
from tests.cluster.harness import assert_sent, contents, listing, objects_on_disk
from tests.repair.cluster import ask, described, lose_catalogue, nodes_alone, rebuild, start_rebuild

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def studies(cluster: Cluster) -> list[dict[str, Any]]:
    return ask(cluster, "studies")["studies"]


def write_sources(folder: Path) -> list[Path]:
    """Three studies, files that are not DICOM, and two different objects with one SOP Instance UID."""
    for seed in (1, 2, 3):
        write_series(folder / f"study-{seed}", 9, seed=seed, rows=48, columns=48)
    (folder / "other").mkdir()
    for number in range(4):
        (folder / "other" / f"{number}.txt").write_text(f"not DICOM {number}")
    twin = pydicom.dcmread(next((folder / "study-1").iterdir()))
    twin.PixelData = bytes(len(twin.PixelData))
    (folder / "twin").mkdir()
    twin.save_as(folder / "twin/twin.dcm")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(("replicas", "flags"), [(1, ["--plain"]), (2, [])])
def test_the_listing_is_the_same_and_everything_comes_back(
    fresh: Opener, tmp_path: Path, replicas: int, flags: list[str]
) -> None:
    sources = write_sources(tmp_path / "in")
    with fresh(*flags, nodes=3, replicas=replicas) as cluster:
        for source in sources:
            assert cluster.run("send", "--any-file", source).code == 0
        before, studies_before = described(cluster), studies(cluster)
        totals_before = cluster.run("status").summary
    data = cluster.data
    lose_catalogue(data)
    with nodes_alone(data):
        result = rebuild(data)
        assert result.code == 0, result
        again = rebuild(data)
        assert (again.code, again.summary["error"]["code"]) == (1, "conflict")
        assert rebuild(data, "--keep-aside").summary["objects"] == result.summary["objects"]
    assert result.summary["objects"] == len(before) == 3 * 9 + 4 + 1
    assert result.summary["replicas"] == len(before) * replicas == sum(result.summary["copies"].values())
    assert (result.summary["damaged"], result.summary["lost"], result.summary["without"]) == ([], [], [])
    with fresh(*flags, nodes=3, replicas=replicas) as cluster:
        assert described(cluster) == before
        assert studies(cluster) == studies_before
        totals = cluster.run("status").summary
        for key in ("objects", "bytes", "stored_bytes", "studies"):
            assert totals[key] == totals_before[key], key
        assert cluster.run("get", "--all", tmp_path / "out").code == 0
        assert set(contents(tmp_path / "out")) == set(contents(tmp_path / "in"))
        one = pydicom.dcmread(next((tmp_path / "in/study-2").iterdir()))
        assert cluster.run("get", "--study", one.StudyInstanceUID, tmp_path / "study").code == 0
        assert contents(tmp_path / "study") == contents(tmp_path / "in/study-2")
        assert cluster.run("verify", "--deep").code == 0
        assert_sent(cluster.run("send", tmp_path / "in/study-3"), objects=0, skipped=9)


def test_a_node_that_is_not_there_is_not_taken_for_empty(fresh: Opener, tmp_path: Path, series: Path) -> None:
    with fresh(nodes=2, replicas=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
    data = cluster.data
    lose_catalogue(data)
    with nodes_alone(data) as running:
        running["node-2"].kill()
        running["node-2"].wait()
        refused = rebuild(data, "--wait", "3")
        assert (refused.code, refused.summary["error"]["code"]) == (3, "unreachable")
        assert "node-2" in refused.errors
        assert list((data / "gateway").glob("*catalogue*")) == []
        assert rebuild(data, "--without", "node-7").code == 2
        done = rebuild(data, "--without", "node-2")
        assert (done.code, done.summary["objects"], done.summary["without"]) == (0, 8, ["node-2"])


def test_damage_is_named_and_only_the_last_copy_is_lost(fresh: Opener, series: Path) -> None:
    with fresh(nodes=2, replicas=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
    files: dict[str, list[Path]] = {}
    for path in objects_on_disk(cluster):
        files.setdefault(path.name, []).append(path)
    half, lost = sorted(files)[:2]
    for path in [files[half][0], *files[lost]]:
        path.chmod(0o600)
        path.write_bytes(b"\0" * path.stat().st_size)
    lose_catalogue(cluster.data)
    with nodes_alone(cluster.data):
        result = rebuild(cluster.data)
    assert (result.code, result.summary["objects"], result.summary["lost"]) == (1, 7, [lost])
    assert sorted(entry["object"] for entry in result.summary["damaged"]) == sorted([half, lost, lost])
    assert len(list(cluster.data.glob("nodes/*/quarantine/*"))) == 3


@pytest.mark.timeout(300)  # two rebuilds wait for a quarter of a minute each, so that slow nodes are heard
def test_a_folder_that_a_node_cannot_list_is_left_out_only_by_word_and_named(fresh: Opener, series: Path) -> None:
    """And when it can be read again nothing was lost, and what is in it is found."""
    with fresh(nodes=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        before = described(cluster)
    data, paths = cluster.data, sorted(objects_on_disk(cluster))
    sick = paths[0].parent
    folder, node = f"{sick.parent.name}/{sick.name}", sick.parents[2].name
    away = data / "away"
    lose_catalogue(data)
    with nodes_alone(data):
        sick.rename(away)
        sick.symlink_to(sick.name)  # "too many levels of symbolic links", whoever reads
        refused = rebuild(data, "--wait", "15")
        assert (refused.code, refused.summary["error"]["code"]) == (1, "storage")
        assert f"objects/{folder} cannot be listed" in refused.errors
        assert "--without-unreadable" in refused.errors
        assert list((data / "gateway").glob("*catalogue*")) == []
        done = rebuild(data, "--without-unreadable", "--wait", "15")
        assert (done.code, done.summary["unlisted"]) == (1, [{"node": node, "folder": folder}])
        assert done.summary["objects"] == sum(path.parent != sick for path in paths)
        sick.unlink()
        away.rename(sick)
        whole = rebuild(data, "--keep-aside")
        assert (whole.code, whole.summary["objects"], whole.summary["unlisted"]) == (0, 8, [])
    with fresh(nodes=2) as cluster:
        assert described(cluster) == before


def test_killed_at_any_moment_it_is_only_to_be_repeated(fresh: Opener, tmp_path: Path) -> None:
    """While it is not whole no gateway serves it; a node that is killed meanwhile is waited for."""
    write_series(tmp_path / "in", 40, seed=77, rows=32, columns=32)
    with fresh(nodes=2) as cluster:
        assert_sent(cluster.run("send", tmp_path / "in"), objects=40)
        before = described(cluster)
    data = cluster.data
    lose_catalogue(data)
    chance = random.Random(5)
    with nodes_alone(data):
        for _ in range(3):
            process = start_rebuild(data, "--keep-aside")
            time.sleep(chance.uniform(0.3, 1.6))
            process.kill()
            process.communicate()
        process = start_rebuild(data, "--keep-aside")
        assert process.wait(60) == 0
        process.communicate()
    with fresh(nodes=2) as cluster:
        assert described(cluster) == before


def test_no_gateway_serves_beside_a_rebuild(fresh: Opener, tmp_path: Path, series: Path) -> None:
    with fresh(nodes=1) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        busy = rebuild(cluster.data, "--keep-aside")
        assert (busy.code, busy.summary["error"]["code"]) == (2, "settings")
        assert len(listing(cluster)) == 8
    process = start_rebuild(cluster.data, "--keep-aside")  # waits for a node that does not come
    deadline_s = time.monotonic() + 20
    while not (cluster.data / "gateway/rebuilding").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with pytest.raises(RuntimeError, match="gateway rebuild"), fresh(nodes=1):
        pytest.fail("it served a catalogue that was being made anew")
    with nodes_alone(cluster.data):
        assert rebuild(cluster.data, "--keep-aside").code == 0
    with fresh(nodes=1) as cluster:
        assert len(listing(cluster)) == 8
    shutil.rmtree(tmp_path / "cluster")
