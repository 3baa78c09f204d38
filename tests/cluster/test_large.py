"""Memory stays bounded with many small files and with one big object (`make test-large` for the full sizes)."""

import time
from pathlib import Path

import pytest

from bench.cluster import Cluster, resident_peak_bytes
from bench.generate import write_multiframe, write_series
from experiments.processes import tree
from tests.cluster.conftest import Opener
from tests.cluster.harness import assert_holds

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
AGENT_BYTES_MAX, NODE_BYTES_MAX = 300_000_000, 150_000_000


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_large_number_of_small_files(fresh: Opener, tmp_path: Path, count: int) -> None:
    write_series(tmp_path / "in", count, seed=count, rows=72, columns=64)
    with fresh(nodes=5) as cluster:
        send_within_memory(cluster, tmp_path / "in")
        assert_holds(cluster, [tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize("size_bytes", [256_000_000, pytest.param(3_000_000_000, marks=pytest.mark.campaign)])
def test_large_single_object(fresh: Opener, tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "in").mkdir()
    write_multiframe(tmp_path / "in" / "multiframe.dcm", size_bytes, seed=size_bytes)
    with fresh(nodes=5) as cluster:
        send_within_memory(cluster, tmp_path / "in")
        out = tmp_path / "out"
        assert within_memory(cluster, "get", "--all", out) == 0
        (came_back,) = (path for path in out.rglob("*") if path.is_file())
        assert same_bytes(tmp_path / "in" / "multiframe.dcm", came_back)


def send_within_memory(cluster: Cluster, source: Path) -> None:
    assert within_memory(cluster, "send", source) == 0


def within_memory(cluster: Cluster, *words: object) -> int:
    """Run a command; return its exit code after judging the most memory that it and each node ever had resident.

    What the processes that decode for a node have at the end counts as the node's.
    """
    process, peak = cluster.start(*words), 0
    while process.poll() is None:
        peak = max(peak, resident_peak_bytes(process.pid))
        time.sleep(0.02)  # VmHWM is a peak: only what comes after the last look is missed
    output, errors = process.communicate()
    print(f"{words[0]}: peak {peak / 1e6:.0f} MB; {output.decode()[-400:]} {errors.decode()[-400:]}")
    assert 0 < peak < AGENT_BYTES_MAX
    for role, pid in cluster.pids().items():
        if role.startswith("node-"):
            own, decoders = resident_peak_bytes(pid), sum(proportional_bytes(each) for each in tree([pid])[1:])
            print(f"{role}: peak {own / 1e6:.0f} MB, its decoders {decoders / 1e6:.0f} MB")
            assert own > 0, role
            assert decoders > 0, role
            assert own + decoders < NODE_BYTES_MAX, role
    return process.returncode


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, pages that it shares by the share (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in rollup if line.startswith("Pss:"))


def same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while (piece := left.read(1 << 20)) == right.read(1 << 20):
            if not piece:
                return True
    return False
