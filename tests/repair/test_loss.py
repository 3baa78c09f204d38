"""Real clusters that lose a copy, or a node: noticed in time, made good from replicas, and nothing is worse for it.

Settings are short where a default would make the test long; what is promised of the defaults is measured with them.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bench.cluster import Cluster
from bench.generate import write_series
from tests.cluster.conftest import Opener
from tests.cluster.harness import assert_holds, assert_sent, eventually, listing, objects_on_disk
from tests.repair.cluster import ask

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
NOTICED_S, STARTED_S = 15.0, 60.0  # as promised


def prepare(fresh: Opener, *, nodes: int, gateway: str, node: str = "") -> Path:
    """Make a cluster's folder with more keys in its configurations; return it."""
    with fresh(nodes=nodes, replicas=2) as cluster:
        data = cluster.data
    for path, more in [(data / "gateway/gateway.toml", gateway), *((p, node) for p in data.glob("nodes/*/node.toml"))]:
        path.write_text(f"{more}\n{path.read_text()}")
    return data


def repairs(cluster: Cluster) -> dict[str, Any]:
    return ask(cluster, "status")["repairs"]


def state_of(cluster: Cluster, node_id: str) -> str:
    return {node["node_id"]: node["state"] for node in ask(cluster, "status")["nodes"]}[node_id]


def events(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    return [event["body"] for event in ask(cluster, "events")["events"] if event["kind"] == kind]


def rot(path: Path) -> bytes:
    """Flip a bit of a stored file, or flip it back; return what it holds now."""
    stored = bytearray(path.read_bytes())
    stored[-5] ^= 4
    path.chmod(0o600)
    path.write_bytes(stored)
    return bytes(stored)


def set_aside(path: Path) -> list[Path]:
    """Return what is in the quarantine of the node that has this file."""
    return list((path.parents[3] / "quarantine").iterdir())


@pytest.mark.parametrize("finder", ["the scrubber", "a reader"])
def test_a_rotten_copy_is_found_and_made_good(fresh: Opener, tmp_path: Path, series: Path, finder: str) -> None:
    """A reader gets the other copy, and the damaged one is repaired all the same."""
    scrub = "scrub_bytes_per_s = 1_000_000_000\nscrub_every_s = 1.0"
    node = scrub if finder == "the scrubber" else "scrub_bytes_per_s = 0"
    prepare(fresh, nodes=3, gateway="repair_every_s = 1.0", node=node)
    with fresh(nodes=3, replicas=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        bad = objects_on_disk(cluster)[3]
        stored = rot(bad)
        if finder == "a reader":
            assert_holds(cluster, [series], tmp_path / "while")
            if not set_aside(bad):  # readers go to the other copy of this one
                rot(bad)
                bad = next(path for path in objects_on_disk(cluster) if path.name == bad.name and path != bad)
                stored = rot(bad)
                assert_holds(cluster, [series], tmp_path / "while-again")
        node_id = bad.relative_to(cluster.data / "nodes").parts[0]
        eventually(lambda: repairs(cluster)["repaired_total"] >= 1)
        found = repairs(cluster)
        assert (found["damaged_total"], found["damaged_objects"], found["lost_objects"]) == (1, 0, 0)
        assert events(cluster, "object damaged") == [{"node_id": node_id, "object_ids": [bad.name]}]
        (repaired,) = events(cluster, "object repaired")
        assert repaired["object_ids"] == [bad.name]
        holders = {entry["object_id"]: entry["node_ids"] for entry in listing(cluster)}
        assert all(len(node_ids) == 2 for node_ids in holders.values())
        assert repaired["node_id"] in holders[bad.name]
        (kept,) = set_aside(bad)
        assert (kept.name, kept.read_bytes()) == (f"{bad.name}.0", stored)
        assert cluster.run("verify", "--deep").code == 0
        assert_holds(cluster, [series], tmp_path / "after")


def test_a_node_that_is_gone_is_noticed_and_its_copies_are_made_elsewhere(
    fresh: Opener, tmp_path: Path, series: Path
) -> None:
    """Measured with the default settings, but for a short grace time, after which the copies begin."""
    grace_s = 4.0
    prepare(fresh, nodes=3, gateway=f"replica_grace_s = {grace_s}")
    with fresh(nodes=3, replicas=2) as cluster:
        assert_sent(cluster.run("send", series), objects=8)
        before = {entry["object_id"]: set(entry["node_ids"]) for entry in listing(cluster)}
        files = {path: path.stat().st_mtime_ns for path in objects_on_disk(cluster)}
        victim = max(("node-1", "node-2", "node-3"), key=lambda node: sum(node in held for held in before.values()))
        had = sum(victim in held for held in before.values())
        os.kill(cluster.pids()[victim], signal.SIGSTOP)
        began_s = time.monotonic()
        try:
            eventually(lambda: state_of(cluster, victim) == "silent", within_s=60)
            noticed_s = time.monotonic() - began_s
            eventually(lambda: repairs(cluster)["repaired_total"] >= 1, within_s=120)
            started_s = time.monotonic() - began_s - noticed_s - grace_s
            print(f"noticed after {noticed_s:.1f} s, copies began {started_s:.1f} s after the grace time")
            assert noticed_s < NOTICED_S
            assert started_s < STARTED_S
            eventually(lambda: repairs(cluster)["repaired_total"] == had and repairs(cluster)["short_objects"] == 0)
            assert repairs(cluster)["gone_nodes"] == [victim]
            after = {entry["object_id"]: set(entry["node_ids"]) for entry in listing(cluster)}
            assert all(len(held - {victim}) == 2 for held in after.values())
            assert all(before[object_id] <= held for object_id, held in after.items())
            assert_holds(cluster, [series], tmp_path / "without")
        finally:
            os.kill(cluster.pids()[victim], signal.SIGCONT)
        eventually(lambda: repairs(cluster)["gone_nodes"] == [])
        assert {path: path.stat().st_mtime_ns for path in files} == files  # nothing was taken away
        assert cluster.run("verify", "--deep").code == 0


def test_copies_go_on_after_the_gateway_is_killed_and_end_when_the_node_is_back(fresh: Opener, tmp_path: Path) -> None:
    """At a rate at which all of it takes long: a kill in the middle, then the node comes back in the middle."""
    count = 150
    write_series(tmp_path / "in", count, seed=31, rows=96, columns=96)
    prepare(
        fresh,
        nodes=3,
        gateway="silent_after_s = 4.0\nreplica_grace_s = 0.0\nrepair_every_s = 1.0\nrepair_bytes_per_s = 100_000",
    )
    with fresh(nodes=3, replicas=2) as cluster:
        assert_sent(cluster.run("send", tmp_path / "in"), objects=count)
        os.kill(cluster.pids()["node-2"], signal.SIGSTOP)
        try:
            eventually(lambda: repairs(cluster)["repaired_total"] >= 1, within_s=60)
            gateway = cluster.pids()["gateway"]
            os.kill(gateway, signal.SIGKILL)
            eventually(lambda: cluster.pids().get("gateway", gateway) != gateway)
            assert cluster.run("status").code == 0  # it waits until the gateway answers again
            done = repairs(cluster)["repaired_total"]
            eventually(lambda: repairs(cluster)["repaired_total"] > done, within_s=90)
        finally:
            os.kill(cluster.pids()["node-2"], signal.SIGCONT)
        eventually(lambda: repairs(cluster)["gone_nodes"] == [])
        eventually(lambda: repairs(cluster)["short_objects"] == 0)
        made = repairs(cluster)["repaired_total"]
        on_node_2 = sum("node-2" in entry["node_ids"] for entry in listing(cluster))
        assert done < made < on_node_2  # it ended before all was copied
        assert len(objects_on_disk(cluster)) == 2 * count + made
        assert_holds(cluster, [tmp_path / "in"], tmp_path / "out")
        assert cluster.run("verify", "--deep").code == 0
