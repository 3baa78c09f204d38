"""kill -9 of the agent, the gateway, one node and all nodes in the middle of a transfer (`make test-kills`: 20 times).

The moment is drawn in objects, not in seconds: the kill comes when a random share of the transfer is on the nodes'
disks, so that it falls into the transfer on any machine. The seed is in the test's name.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from bench.cluster import Cluster, processes_of, start_cluster
from bench.generate import write_series
from tests.cluster.conftest import Opener
from tests.cluster.harness import assert_holds, assert_sent, eventually, objects_on_disk

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
VICTIMS = ["agent", "gateway", "node", "nodes"]
IMAGES, NODES, ATTEMPTS = 120, 3, 5


@pytest.mark.parametrize("seed", [1])
def test_a_kill_of_each_party_loses_nothing(fresh: Opener, tmp_path: Path, seed: int) -> None:
    kill_and_finish(fresh, tmp_path, seed, VICTIMS)


@pytest.mark.campaign
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("replicas", [1, 2])
def test_kill_campaign(fresh: Opener, tmp_path: Path, victim: str, replicas: int) -> None:
    kill_and_finish(fresh, tmp_path, 1000 * replicas + VICTIMS.index(victim), [victim] * 5, replicas=replicas)


def kill_and_finish(fresh: Opener, tmp_path: Path, seed: int, victims: list[str], *, replicas: int = 1) -> None:
    """Kill each of `victims` in a transfer of its own, on one cluster; then everything must be there."""
    chance = random.Random(seed)
    sources: list[Path] = []
    in_the_middle = 0
    with fresh("--plain", nodes=NODES, replicas=replicas) as cluster:
        for number, victim in enumerate(victims):
            sources.append(tmp_path / f"in-{number}")
            write_series(sources[-1], IMAGES, seed=seed * 100 + number)
            in_the_middle += _kill(cluster, sources[-1], victim, chance, replicas)
        assert_holds(cluster, sources, tmp_path / "out")
        assert cluster.run("verify", "--deep").code == 0
    print(f"{in_the_middle} of {len(victims)} kills came before the sender had ended")
    assert in_the_middle >= len(victims) / 2


def _kill(cluster: Cluster, source: Path, victim: str, chance: random.Random, replicas: int) -> bool:
    """Kill in a transfer of `source`, then finish it; return whether the sender was still at work."""
    before, share = len(objects_on_disk(cluster)), chance.random()
    roles = cluster.pids()
    process = cluster.start("send", source)
    threshold = before + share * IMAGES * replicas
    eventually(
        lambda: process.poll() is not None or len(objects_on_disk(cluster)) > threshold, within_s=60, every_s=0.005
    )
    time.sleep(chance.uniform(0, 0.02))  # somewhere between two objects
    killed = _victims(roles, victim, chance)
    at_work = process.poll() is None
    for pid in [process.pid] if victim == "agent" else killed.values():
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=240)
    _finish(cluster, source)
    for role, pid in killed.items():
        eventually(lambda role=role, pid=pid: cluster.pids().get(role, pid) != pid)
    return at_work


def _victims(roles: dict[str, int], victim: str, chance: random.Random) -> dict[str, int]:
    nodes = {role: pid for role, pid in roles.items() if role.startswith("node-")}
    one = chance.choice(sorted(nodes))
    choices = {"agent": {}, "gateway": {"gateway": roles["gateway"]}, "node": {one: nodes[one]}, "nodes": nodes}
    return choices[victim]


def _finish(cluster: Cluster, source: Path) -> None:
    """Run the same command until it says that all is done, a few times at most."""
    for _ in range(ATTEMPTS):
        result = cluster.run("send", source)
        if result.code == 0:
            break
    assert result.code == 0, result
    stored_before = result.summary["skipped"]
    assert_sent(result, objects=IMAGES - stored_before, skipped=stored_before)


def test_a_kill_of_the_supervisor_leaves_no_process_and_a_usable_folder(
    fresh: Opener, tmp_path: Path, series: Path
) -> None:
    cluster = start_cluster(tmp_path / "cluster", nodes=2)
    assert_sent(cluster.run("send", series), objects=8)
    cluster.kill()
    eventually(lambda: not processes_of(cluster.data))
    with fresh(nodes=2) as again:
        assert_holds(again, [series], tmp_path / "out")
