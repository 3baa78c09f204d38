"""kill -9 of the agent at random moments of its work: every file is stored, and none went before it was."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from transfer.objects import object_id

CHILD = Path(__file__).with_name("delivering_child.py")
SETTINGS = """
[[destination]]
name = "cloud"
credentials = "none.json"
[spool]
reserve_bytes = 0
[[watch]]
folder = "outbox"
settle_s = 0.1
after = "delete"
"""


def everything(*folders: Path) -> set[str]:
    return {object_id(path.read_bytes()) for folder in folders for path in folder.iterdir() if path.suffix == ""}


def wait_until(reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_nothing_is_lost_and_nothing_goes_before_it_is_stored(tmp_path: Path) -> None:
    numbers = random.Random(1906)
    (tmp_path / "agent.toml").write_text(SETTINGS)
    outbox, store = tmp_path / "outbox", tmp_path / "store"
    outbox.mkdir()
    store.mkdir()
    for number in range(300):
        (outbox / f"{number}").write_bytes(numbers.randbytes(2000))
    wanted = everything(outbox)
    for _ in range(6):
        stored = len(everything(store))
        with subprocess.Popen([sys.executable, CHILD, tmp_path], stderr=subprocess.DEVNULL) as child:
            wait_until(lambda stored=stored: len(os.listdir(store)) > stored or not os.listdir(outbox))
            time.sleep(numbers.random() * 0.2)  # the moment of death, not a synchronisation
            child.kill()
        assert everything(outbox, store) == wanted
    with subprocess.Popen([sys.executable, CHILD, tmp_path], stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: not os.listdir(outbox))
        child.kill()
    assert list(outbox.iterdir()) == []
    assert everything(store) == wanted
