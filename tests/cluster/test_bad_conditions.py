"""Circumstances that are nobody's fault, or the operator's: full disks, two of everything, ports and keys."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cluster import Cluster, run
from bench.generate import write_series
from tests.cluster.conftest import Opener
from tests.cluster.harness import assert_holds, assert_sent, listing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB under the cluster's nodes; `remount` makes it larger."""
    nodes = tmp_path / "cluster" / "data" / "nodes"
    nodes.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(nodes)], check=False, capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("a small file system needs the right to mount")
    yield nodes
    subprocess.run(["umount", str(nodes)], check=True)


def test_a_full_disk_is_said_and_the_same_command_goes_on_when_there_is_room(
    fresh: Opener, tmp_path: Path, small_disk: Path
) -> None:
    write_series(tmp_path / "in", 160, seed=7)
    with fresh("--plain", nodes=1) as cluster:
        configuration = cluster.data / "nodes" / "node-1" / "node.toml"
        assert configuration.exists()
        full = cluster.run("send", tmp_path / "in")
        assert full.code in (1, 3), full
        said = json.dumps(full.summary) + full.errors
        assert "full" in said or "room" in said or "space" in said, said
        assert shutil.disk_usage(small_disk).free > 0, "a reserve is kept"
        subprocess.run(["mount", "-o", "remount,size=512m", str(small_disk)], check=True)
        result = cluster.run("send", tmp_path / "in")
        stored_before = result.summary["skipped"]
        assert_sent(result, objects=160 - stored_before, skipped=stored_before)
        assert_holds(cluster, [tmp_path / "in"], tmp_path / "out")


def test_two_agents_send_the_same_study_at_once(fresh: Opener, tmp_path: Path) -> None:
    write_series(tmp_path / "in", 100, seed=8, rows=200, columns=200)
    with fresh(nodes=3) as cluster:
        both = [cluster.start("send", tmp_path / "in") for _ in range(2)]
        for process in both:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            summary = json.loads(output.decode().splitlines()[-1])
            assert summary["objects"] + summary["skipped"] == 100
        assert_holds(cluster, [tmp_path / "in"], tmp_path / "out")
        assert len(listing(cluster)) == 100


def test_a_second_up_on_one_folder_says_who_has_it(cluster: Cluster) -> None:
    second = run("up", "--data", cluster.data, "--port", 0, timeout_s=60)
    assert second.code == 2
    assert str(cluster.process.pid) in second.errors
    assert cluster.run("status").code == 0


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("up", "--data", tmp_path / "data", "--nodes", 1, "--port", port, timeout_s=60)
    assert result.code == 2
    assert str(port) in result.errors
    assert not list((tmp_path / "data").glob("run/*.pid"))


@pytest.mark.parametrize("role", ["gateway", "node"])
def test_an_unknown_key_names_the_nearest(cluster: Cluster, tmp_path: Path, role: str) -> None:
    original = cluster.data / ("gateway/gateway.toml" if role == "gateway" else "nodes/node-1/node.toml")
    changed = tmp_path / "changed.toml"
    changed.write_text(original.read_text().replace("identity =", "identify ="))
    result = run(role, "serve", "--config", changed, timeout_s=30)
    assert result.code == 2
    assert "identify" in result.errors
    assert "did you mean `identity`" in result.errors


@pytest.mark.parametrize(
    "words",
    [("send",), ("send", "nowhere"), ("up", "--nodes", "0"), ("get", "out"), ("fly",), ("send", ".", "--flows", "-1")],
    ids=" ".join,
)
def test_bad_usage_is_one_line_and_exit_code_2(words: tuple[str, ...]) -> None:
    result = run(*words, timeout_s=30)
    assert result.code == 2
    assert "fascicle: " in result.errors
    assert "Traceback" not in result.errors


def test_a_gateway_that_is_down_is_said_with_exit_code_3(tmp_path: Path, fresh: Opener, series: Path) -> None:
    with fresh(nodes=1) as cluster:
        kept = tmp_path / "credentials.json"
        shutil.copy(cluster.credentials, kept)
    result = run("status", "--to", kept, "--json", timeout_s=120)
    assert result.code == 3
    assert "Traceback" not in result.errors


def test_nothing_is_left_behind_by_a_clean_stop(fresh: Opener, series: Path) -> None:
    with fresh(nodes=3) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        roles = set(cluster.pids())
        assert roles == {"up", "gateway", "node-1", "node-2", "node-3"}
        data = cluster.data
    assert list(data.glob("run/*.pid")) == []
    assert list(data.glob("nodes/*/incoming/*")) == []
    assert [path for path in Path("/proc").glob("[0-9]*/cwd") if _leads_into(path, data)] == []


def _leads_into(link: Path, folder: Path) -> bool:
    try:
        return os.readlink(link).startswith(str(folder))
    except (FileNotFoundError, PermissionError):
        return False
