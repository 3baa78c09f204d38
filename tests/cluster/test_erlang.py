"""A stock Erlang client sends 20 files by the paper's own protocol (S2); they are stored and found."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.cluster import open_cluster
from bench.generate import write_series
from tests.cluster.harness import assert_holds, eventually, listing

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("escript") is None, reason="Erlang (Debian: erlang-base) is not installed"),
]
CLIENT = Path(__file__).parents[1] / "paper" / "client.escript"


def test_twenty_files_from_a_real_erlang_are_stored_and_found(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", 20, seed=20)
    with open_cluster(tmp_path / "cluster", "--paper-port", "0", nodes=2) as cluster:
        for node, share in zip(cluster.ready["nodes"], (files[:10], files[10:]), strict=True):
            port = node["paper"].rpartition(":")[2]
            done = subprocess.run(
                ["escript", CLIENT, port, *share], capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, done.stdout) == (0, "10 answered\n"), done.stderr
        eventually(lambda: len(listing(cluster)) == 20)
        assert_holds(cluster, [tmp_path / "in"], tmp_path / "out")
