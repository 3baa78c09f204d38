"""The number of a node's life grows, whatever the clock says and whatever the disk takes."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nodes import lives
from nodes.lives import begin_life
from transfer.errors import FullError

NOW_NS = 1_800_000_000 * 10**9


def test_a_life_is_numbered_by_the_clock_or_one_more_than_the_one_before(tmp_path: Path) -> None:
    times = [NOW_NS, NOW_NS, NOW_NS - 10**15, NOW_NS + 5, 0]
    assert [begin_life(tmp_path / "life", now_ns) for now_ns in times] == [
        NOW_NS, NOW_NS + 1, NOW_NS + 2, NOW_NS + 5, NOW_NS + 6,
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"x", b"-", b"\xff" * 30])
def test_a_number_that_cannot_be_read_is_said_and_the_clock_counts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "life").write_bytes(content)
    with capture_logs() as logs:
        assert begin_life(tmp_path / "life", NOW_NS) == NOW_NS
    assert [line["event"] for line in logs] == ["life_unknown"]
    assert begin_life(tmp_path / "life", 0) == NOW_NS + 1


def test_a_full_disk_does_not_keep_a_node_from_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise FullError("no room")

    begin_life(tmp_path / "life", NOW_NS)
    monkeypatch.setattr(lives, "write_file_durably", full)
    with capture_logs() as logs:
        assert begin_life(tmp_path / "life", 0) == NOW_NS + 1
    assert [line["event"] for line in logs] == ["life_not_kept"]
