import random
import subprocess
import sys
from pathlib import Path

from nodes.store import Store
from tests.store.objects import fetch, noise
from tests.store.storing_child import LENGTHS

ROOT = Path(__file__).parents[2]
KILLS = 6


def test_what_was_acknowledged_before_a_kill_is_there_bit_for_bit_after_it(tmp_path):
    chance = random.Random(7)
    acknowledged: dict[int, str] = {}
    for turn in range(KILLS):
        command = [sys.executable, "-m", "tests.store.storing_child", str(tmp_path), str(turn * 10_000)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(chance.randrange(1, 40)):
                seed, name = child.stdout.readline().split()
                acknowledged[int(seed)] = name
            child.kill()
        with Store.open(tmp_path, 0) as store:
            for seed, name in acknowledged.items():
                assert fetch(store, name) == noise(LENGTHS[seed % 3], seed)
            found = [path.name for path in (tmp_path / "objects").rglob("*") if path.is_file()]
            assert all(store.check(name, deep=True).object_id == name for name in found)
            assert not any((tmp_path / "quarantine").iterdir())
            assert not any((tmp_path / "incoming").iterdir())
    assert len(acknowledged) >= KILLS
