"""Rot under running nodes, seen from outside: `verify --deep` names it, `get` never gives it out, a replica serves."""

import random
from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.generate import write_series
from tests.cluster.conftest import Opener, fresh
from tests.cluster.harness import contents, objects_on_disk
from tests.faults.real.corruption import CHANGES

__all__ = ["fresh"]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
IMAGES, ROTTEN, SEED = 24, 8, 12


def rot(cluster: Cluster, node: str, chance: random.Random) -> set[str]:
    """Change some of a node's objects, each in another way; return their ids."""
    paths = sorted(path for path in objects_on_disk(cluster) if path.is_relative_to(cluster.data / "nodes" / node))
    chosen = chance.sample(paths, min(ROTTEN, len(paths)))
    for path, change in zip(chosen, chance.sample(CHANGES, len(chosen)), strict=True):
        before, other = path.read_bytes(), chance.choice([each for each in paths if each != path]).read_bytes()
        file = bytearray(before)
        change(file, chance, other)
        file = file if file != before else bytearray(before[:-1])
        path.write_bytes(file)
    return {path.name for path in chosen}


def quarantined(cluster: Cluster) -> set[str]:
    return {path.name.partition(".")[0] for path in cluster.data.glob("nodes/*/quarantine/*")}


def test_the_only_copy_is_never_given_out_when_it_is_rotten(fresh: Opener, tmp_path: Path) -> None:
    write_series(tmp_path / "in", IMAGES, seed=SEED, rows=64, columns=64)
    with fresh("--plain", nodes=1) as cluster:
        assert cluster.run("send", tmp_path / "in").code == 0
        rotten = rot(cluster, "node-1", random.Random(SEED))
        got = cluster.run("get", "--all", tmp_path / "out")
        assert got.code == 1
        assert all(name in got.errors + str(got.summary) for name in rotten)
        found, sound = contents(tmp_path / "out"), contents(tmp_path / "in")
        assert found.total() == IMAGES - ROTTEN
        assert found <= sound
        assert quarantined(cluster) == rotten


@pytest.mark.parametrize("reader", ["get", "verify"])
def test_a_rotten_replica_is_named_and_the_other_one_serves(fresh: Opener, tmp_path: Path, reader: str) -> None:
    write_series(tmp_path / "in", IMAGES, seed=SEED + 1, rows=64, columns=64)
    with fresh("--plain", nodes=2, replicas=2) as cluster:
        assert cluster.run("send", tmp_path / "in").code == 0
        rotten = rot(cluster, "node-2", random.Random(SEED + 1))
        if reader == "verify":
            checked = cluster.run("verify", "--deep")
            assert checked.code == 1
            assert {(each["object"], each["node"], each["problem"]) for each in checked.summary["problems"]} == {
                (name, "node-2", "corrupt") for name in rotten
            }
            assert quarantined(cluster) == rotten
        assert cluster.run("get", "--all", tmp_path / "out").code == 0
        assert contents(tmp_path / "out") == contents(tmp_path / "in")
        assert quarantined(cluster) <= rotten
