"""A node is revoked in the middle of a transfer: what it took counts no more, goes elsewhere, and all comes back."""

import json
from pathlib import Path

import pytest

from bench.cluster import open_cluster, run
from bench.generate import write_series
from tests.cluster.harness import assert_holds, eventually, objects_on_disk

pytestmark = pytest.mark.cluster
IMAGES = 16  # of 820 KB, at 16 Mb/s: 6.5 s


def test_a_transfer_goes_on_without_a_node_that_is_revoked_meanwhile(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_series(source, IMAGES, seed=1)
    with open_cluster(tmp_path, nodes=3) as cluster:
        process = cluster.start("send", source, "--rate", "16Mbit/s", "--encoding", "raw", "--json")
        eventually(lambda: len(objects_on_disk(cluster)) >= IMAGES // 2)
        revoked = run("revoke", "node-2", "--to", cluster.data / "administrator.json")
        assert revoked.code == 0, revoked
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert b"sending again (1 of 2)" in errors
        summary = json.loads(output)
        # One whose receipt was on its way when the first transfer ended is found stored by the second.
        assert (summary["objects"] + summary["skipped"], summary["failed"]) == (IMAGES, 0)
        assert summary["objects"] >= IMAGES // 2
        assert_holds(cluster, [source], tmp_path / "out")
