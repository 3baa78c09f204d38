"""Processes that stand still for a while (SIGSTOP) in the middle of a transfer: it ends as if nothing had been.

A node that stands still for good is left (tests/flow/test_silence.py).
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.generate import write_series
from tests.cluster.conftest import Opener, fresh
from tests.cluster.harness import assert_holds, eventually, objects_on_disk

__all__ = ["fresh"]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
IMAGES, SEED, STILL_S = 60, 11, 1.5


def test_each_party_may_stand_still_for_a_while(fresh: Opener, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    sources: list[Path] = []
    with fresh("--plain", nodes=2, replicas=2) as cluster:
        for number, role in enumerate(["node-1", "gateway", "agent", "node-2"]):
            sources.append(tmp_path / f"in-{number}")
            write_series(sources[-1], IMAGES, seed=SEED * 10 + number, rows=128, columns=128)
            pids = cluster.pids()
            before_s = time.monotonic()
            send_with_a_pause(cluster, sources[-1], role, chance.randrange(IMAGES))
            print(f"seed {SEED}: {role} stood still, the transfer took {time.monotonic() - before_s:.1f} s")
            assert cluster.pids() == pids, f"seed {SEED}: {role} was taken for dead"
        assert_holds(cluster, sources, tmp_path / "out")


def send_with_a_pause(cluster: Cluster, source: Path, role: str, after: int) -> None:
    """Send `source`; stop `role` for a while when so many objects of it are there."""
    wanted = len(objects_on_disk(cluster)) + after
    sender = cluster.start("send", source)
    eventually(lambda: len(objects_on_disk(cluster)) >= wanted or sender.poll() is not None, every_s=0.002)
    assert sender.poll() is None, (SEED, role, "it had ended before anything stood still")
    stopped = sender.pid if role == "agent" else cluster.pids()[role]
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(STILL_S)  # the fault itself, not a synchronisation
    os.kill(stopped, signal.SIGCONT)
    output, errors = sender.communicate(timeout=60)
    assert sender.returncode == 0, (SEED, role, output, errors)
