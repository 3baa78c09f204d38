"""What a transfer learns of a path is there for the next one, and nothing of it is ever in the way."""

from pathlib import Path

import pytest

from transfer.control import part_memory
from transfer.control.flows import State
from transfer.control.part_memory import PARTS_MAX, STALE_S, Part
from transfer.control.readings import Reading
from transfer.link import UNKNOWN_BYTES_S
from transfer.paths import KnownPath

GATEWAY = "https://gateway.example:8443"
FOUND = State(flows=48, base=Reading(flows=48, span_s=1.0, sent_bytes=11e6), rtt_s_min=0.08)


async def test_the_next_transfer_begins_with_what_worked(tmp_path: Path) -> None:
    path = KnownPath(tmp_path / "paths.json", GATEWAY, "cubic")
    path.link.take(11e6, is_full=True)
    await path.remember(FOUND, seconds=10.0)
    again = KnownPath(tmp_path / "paths.json", GATEWAY, "cubic")
    link = again.link
    assert (again.flows, link.bytes_s) == (None, UNKNOWN_BYTES_S)
    await again.recall()
    assert again.flows == 48
    assert again.link is link  # those who look at it already see what was recalled
    assert link.bytes_s == pytest.approx(path.link.bytes_s)
    assert link.is_known


async def test_another_path_is_a_stranger(tmp_path: Path) -> None:
    path = KnownPath(tmp_path / "paths.json", GATEWAY, "cubic")
    await path.remember(FOUND, seconds=10.0)
    for gateway, congestion in (("https://other.example:8443", "cubic"), (GATEWAY, "bbr")):
        other = KnownPath(tmp_path / "paths.json", gateway, congestion)
        await other.recall()
        assert (other.flows, other.link.is_known) == (None, False)


async def test_a_transfer_too_short_to_tell_leaves_no_trace(tmp_path: Path) -> None:
    path = KnownPath(tmp_path / "paths.json", GATEWAY, "cubic")
    await path.remember(FOUND, seconds=0.5)
    assert not (tmp_path / "paths.json").exists()


async def test_a_folder_that_cannot_be_written_fails_no_transfer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = KnownPath(tmp_path / "file" / "paths.json", GATEWAY, None)
    await path.recall()
    await path.remember(FOUND, seconds=10.0)
    assert path.flows is None


async def test_a_link_that_was_measured_before_the_file_was_read_stays_as_measured(tmp_path: Path) -> None:
    path = KnownPath(tmp_path / "paths.json", GATEWAY, "cubic")
    path.link.take(11e6, is_full=True)
    await path.remember(FOUND, seconds=10.0)
    again = KnownPath(tmp_path / "paths.json", GATEWAY, "cubic")
    again.link.take(3e6, is_full=True)
    await again.recall()
    assert again.link.bytes_s == pytest.approx(3e6)


async def test_the_next_sender_knows_which_node_has_a_part(tmp_path: Path) -> None:
    await KnownPath(tmp_path / "paths.json", GATEWAY, None).remember_part("ab" * 32, "node-3")
    await KnownPath(tmp_path / "paths.json", GATEWAY, None).remember_part("cd" * 32, "node-1")
    again = KnownPath(tmp_path / "paths.json", GATEWAY, "cubic")
    await again.recall()
    assert again.homes == {"ab" * 32: "node-3", "cd" * 32: "node-1"}


async def test_parts_that_cannot_be_written_or_read_fail_no_transfer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    await KnownPath(tmp_path / "file" / "paths.json", GATEWAY, None).remember_part("ab" * 32, "node-3")
    (tmp_path / "parts.json").write_text('{"version": 1, "parts": [')
    path = KnownPath(tmp_path / "paths.json", GATEWAY, None)
    await path.recall()
    assert path.homes == {}


def test_old_parts_are_forgotten_and_many_give_way(tmp_path: Path) -> None:
    file = tmp_path / "parts.json"
    for number in range(PARTS_MAX + 2):
        part_memory.store(file, f"{number:064x}", Part(node_id="node-1", seen_at_s=1e9 + number))
    parts = part_memory.load(file)
    assert sorted(parts) == [f"{number:064x}" for number in range(2, PARTS_MAX + 2)]
    assert list(part_memory.homes(parts, 1e9 + PARTS_MAX + STALE_S)) == sorted(parts)[-2:]
