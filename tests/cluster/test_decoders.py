"""Nodes and readers leave images to processes of their own, whose end costs no image and no node."""

import os
import signal
from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.generate import write_series
from experiments.processes import tree
from tests.cluster.harness import assert_holds, assert_sent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
LIBRARIES = ("imagecodecs", "numpy")


def loaded(pid: int) -> set[str]:
    """Return which of the libraries a process has in its memory."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {name for name in LIBRARIES if f"/{name}" in maps}


def test_no_node_has_the_libraries_and_losing_every_decoder_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    write_series(tmp_path / "in/first", 6, seed=41, rows=64, columns=64)
    assert_sent(cluster.run("send", tmp_path / "in/first", "--encoding", "jxl-1"), objects=6)
    nodes = [pid for role, pid in cluster.pids().items() if role.startswith("node-")]
    assert [loaded(pid) for pid in nodes] == [set()] * len(nodes)
    decoders = [each for pid in nodes for each in tree([pid])[1:]]
    assert [loaded(pid) for pid in decoders] == [set(LIBRARIES)] * 3 * len(nodes)  # a forker and two children each
    for pid in decoders:
        os.kill(pid, signal.SIGKILL)
    write_series(tmp_path / "in/second", 6, seed=42, rows=64, columns=64)
    assert_sent(cluster.run("send", tmp_path / "in/second", "--encoding", "jxl-1"), objects=6)
    assert [pid for role, pid in cluster.pids().items() if role.startswith("node-")] == nodes
    assert_holds(cluster, [tmp_path / "in"], tmp_path / "out")
