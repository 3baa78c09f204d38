"""Real clusters whose copies move, whose nodes are taken away, cloned or put back: nothing is lost, all is said."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from bench.cluster import Cluster, Result, run
from bench.generate import write_series
from tests.cluster.conftest import Opener
from tests.cluster.harness import assert_holds, assert_sent, eventually, listing, objects_on_disk
from tests.repair.cluster import node_alone
from tests.repair.test_loss import prepare, repairs, state_of

pytestmark = [pytest.mark.cluster, pytest.mark.campaign]  # minutes: `make upkeep`
QUICK = "upkeep_every_s = 0.5\ncalm_s = 1.0\nrepair_every_s = 1.0\n"


def shares(cluster: Cluster) -> dict[str, int]:
    """Return how many copies each node has by the listing."""
    held = [node_id for entry in listing(cluster) for node_id in entry["node_ids"]]  # type: ignore[attr-defined]  # JSON
    return {node_id: held.count(node_id) for node_id in ("node-1", "node-2", "node-3")}


def restarted(cluster: Cluster, role: str) -> None:
    """Kill one process, and wait until there is another."""
    before = cluster.pids()[role]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: cluster.pids().get(role, before) != before)


def administer(cluster: Cluster, *words: str) -> Result:
    """Run a command of an administrator; return what it says."""
    return run(*words, "--to", cluster.data / "administrator.json", "--json")


def test_a_node_that_is_added_gets_its_share_and_one_that_drains_gives_all(fresh: Opener, tmp_path: Path) -> None:
    """At a pace at which it takes some seconds, in which the gateway and the new node are killed."""
    count = 60
    write_series(tmp_path / "in", count, seed=41, rows=96, columns=96)
    keys = "balance_spread = 0.0000001\nupkeep_bytes_per_s = 300_000\nticket_lifetime_s = 20.0\nsilent_after_s = 5.0\n"
    prepare(fresh, nodes=2, gateway=QUICK + keys)
    with fresh(nodes=2, replicas=2) as cluster:
        assert_sent(cluster.run("send", tmp_path / "in"), objects=count)
        assert shares(cluster) == {"node-1": count, "node-2": count, "node-3": 0}
    with fresh(nodes=3, replicas=2) as cluster:
        eventually(lambda: repairs(cluster)["moved_total"] >= 1, within_s=100)
        restarted(cluster, "gateway")
        assert cluster.run("status").code == 0  # it waits until the gateway answers again
        done = repairs(cluster)["moved_total"]
        eventually(lambda: repairs(cluster)["moved_total"] > done, within_s=100)
        restarted(cluster, "node-3")
        eventually(lambda: min(shares(cluster).values()) >= count // 2, within_s=90)
        eventually(lambda: all(len(entry["node_ids"]) == 2 for entry in listing(cluster)))  # type: ignore[arg-type]  # JSON
        eventually(lambda: len(objects_on_disk(cluster)) == 2 * count)
        found = repairs(cluster)
        assert (found["damaged_total"], found["lost_objects"], found["short_objects"]) == (0, 0, 0)
        aside = list(cluster.data.glob("nodes/*/trash/*"))
        assert len(aside) >= count // 2, "the old copies are kept for a while"
        assert_holds(cluster, [tmp_path / "in"], tmp_path / "evened")
        assert cluster.run("verify", "--deep").code == 0
        assert administer(cluster, "drain", "node-1").code == 0
        eventually(lambda: [drain["safe"] for drain in repairs(cluster)["drains"]] == [True], within_s=90)
        os.kill(cluster.pids()["node-1"], signal.SIGSTOP)
        try:
            eventually(lambda: state_of(cluster, "node-1") == "silent")
            assert_holds(cluster, [tmp_path / "in"], tmp_path / "without")
        finally:
            os.kill(cluster.pids()["node-1"], signal.SIGCONT)
        listed = administer(cluster, "trash", "list")
        assert listed.summary["objects"] >= count // 2
        assert administer(cluster, "drain", "node-1", "--undo").summary == {"drains": []}


def test_a_cloned_disk_is_said_and_nothing_is_lost(fresh: Opener, tmp_path: Path, series: Path) -> None:
    """The clone runs beside the node that it was made of, with its name, its keys and its disk's id."""
    prepare(fresh, nodes=2, gateway="silent_after_s = 5.0\n")
    with fresh(nodes=2, replicas=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        home, clone = cluster.data / "nodes/node-2", tmp_path / "clone"
        shutil.copytree(home, clone, ignore=shutil.ignore_patterns("lock", "*.log"))
        config = clone / "node.toml"
        text = config.read_text().replace(str(home), str(clone))
        for key, value in (("listen", "127.0.0.1:0"), ("metrics_listen", "")):
            text = re.sub(f"^{key} = .*$", f'{key} = "{value}"', text, flags=re.MULTILINE)
        config.write_text(text)
        with node_alone(config):
            eventually(lambda: repairs(cluster)["twin_nodes"] == ["node-2"], within_s=100)
        eventually(lambda: repairs(cluster)["twin_nodes"] == [], within_s=100)
        eventually(lambda: state_of(cluster, "node-2") == "live", within_s=100)
        assert_holds(cluster, [series], tmp_path / "after")
        assert cluster.run("verify", "--deep").code == 0


def test_a_disk_that_was_put_back_from_a_backup_is_made_good(fresh: Opener, tmp_path: Path, series: Path) -> None:
    write_series(tmp_path / "more", 6, seed=43, rows=64, columns=64)
    prepare(fresh, nodes=2, gateway=QUICK + "stocktake_every_s = 1.0\n")
    with fresh(nodes=2, replicas=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
    home = cluster.data / "nodes/node-2"
    shutil.copytree(home, tmp_path / "backup")
    with fresh(nodes=2, replicas=2) as cluster:
        assert_sent(cluster.run("send", tmp_path / "more"), objects=6)
    shutil.rmtree(home)
    shutil.move(tmp_path / "backup", home)
    with fresh(nodes=2, replicas=2) as cluster:
        eventually(lambda: repairs(cluster)["repaired_total"] == 6, within_s=100)
        assert repairs(cluster)["damaged_total"] == 6
        assert len(objects_on_disk(cluster)) == 2 * 14
        assert_holds(cluster, [series, tmp_path / "more"], tmp_path / "after")
        assert cluster.run("verify", "--deep").code == 0
