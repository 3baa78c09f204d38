"""Lives of a node are in order whatever the clock does, so that its heartbeats always count."""

import itertools
from pathlib import Path

import pytest

from gateway.liveness import is_newer
from nodes import lives
from nodes.lives import next_life
from transfer.errors import FullError
from transfer.heartbeat import Heartbeat

DAY_NS = 86_400 * 10**9
NOW_NS = 1_800_000_000 * 10**9


def first_beat(life: int) -> Heartbeat:
    return Heartbeat("node-1", "disk", life, 1, "127.0.0.1", 9000, "", 0, 0, 0, 0)


def test_a_clock_that_was_set_back_between_two_lives_does_not_make_the_second_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "life"
    lives = [next_life(path, now) for now in (NOW_NS, NOW_NS - 30 * DAY_NS, NOW_NS - 60 * DAY_NS, NOW_NS + DAY_NS)]
    assert lives == [NOW_NS, NOW_NS + 1, NOW_NS + 2, NOW_NS + DAY_NS]
    for earlier, later in itertools.pairwise(lives):
        assert is_newer(first_beat(later), first_beat(earlier))


def test_what_cannot_be_read_or_kept_leaves_the_clock(tmp_path: Path) -> None:
    (tmp_path / "life").write_bytes(b"no number")
    assert next_life(tmp_path / "life", NOW_NS) == NOW_NS
    assert next_life(tmp_path / "gone/life", NOW_NS) == NOW_NS


def test_a_full_disk_does_not_keep_a_node_from_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise FullError("no room")

    next_life(tmp_path / "life", NOW_NS)
    monkeypatch.setattr(lives, "write_file_durably", full)
    assert next_life(tmp_path / "life", 0) == NOW_NS + 1
