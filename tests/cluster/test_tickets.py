"""A transfer outlives its ticket: what is open goes on, and what is opened anew has another."""

import json
import os
import signal
from pathlib import Path

import pytest

from bench.cluster import open_cluster
from bench.generate import write_series
from tests.cluster.harness import assert_holds, eventually, objects_on_disk

pytestmark = pytest.mark.cluster
LIFETIME_S = 1.0
IMAGES = 16  # of 820 KB, at 16 Mb/s: 6.5 s


def test_a_ticket_that_expires_in_the_middle_of_a_transfer_is_renewed(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_series(source, IMAGES, seed=1)
    with open_cluster(tmp_path, nodes=2) as cluster:
        config = cluster.data / "gateway/gateway.toml"
    config.write_text(f"ticket_lifetime_s = {LIFETIME_S}\n{config.read_text()}")
    with open_cluster(tmp_path, nodes=2) as cluster:
        assert f"ticket_lifetime_s = {LIFETIME_S}" in config.read_text()
        process = cluster.start("send", source, "--rate", "16Mbit/s", "--encoding", "raw", "--json")
        eventually(lambda: len(objects_on_disk(cluster)) >= IMAGES // 2)
        for role, pid in cluster.pids().items():
            if role.startswith("node"):
                os.kill(pid, signal.SIGKILL)  # the supervisor starts it anew, and all flows are opened again
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert json.loads(output)["seconds"] > 4 * LIFETIME_S
        assert_holds(cluster, [source], tmp_path / "out")
