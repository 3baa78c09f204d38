"""The scrubber: everything is re-read in order at its pace, damage is found and set aside, a restart goes on."""

import os
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from nodes import scrub, scrubplace
from nodes.scrub import Scrubber
from nodes.scrubplace import SEEK_BYTES, Place
from tests.nodes.kit import Running, raw_id, wait_until
from tests.store.objects import noise, put
from transfer import disk
from transfer.errors import StorageError
from transfer.objects import object_id

FAST = 1 << 40


async def run_pass(scrubber: Scrubber, nursery: trio.Nursery, objects: int) -> None:
    """Let a scrubber go on until one pass is over."""
    nursery.start_soon(scrubber.serve)
    await wait_until(lambda: scrubber.place.done and scrubber.place.began_at_s > 0)
    nursery.cancel_scope.cancel()
    found = scrubber.place
    assert found.objects + found.damaged + found.unreadable == objects


def harm(running: Running, data: bytes, how: str) -> None:
    path = running.object_file(object_id(data))
    stored = bytearray(path.read_bytes())
    path.chmod(0o600)
    match how:
        case "a flipped bit":
            stored[-1] ^= 1
            path.write_bytes(stored)
        case "cut":
            os.truncate(path, len(stored) - 1)
        case "zeroed":
            path.write_bytes(bytes(len(stored)))
        case "another object's":
            path.write_bytes(running.object_file(object_id(b"another")).read_bytes())
        case "longer":
            path.write_bytes(stored + b"x")


@pytest.mark.parametrize("how", ["a flipped bit", "cut", "zeroed", "another object's", "longer"])
@pytest.mark.parametrize("length", [3000, (4 << 20) + 5])
async def test_any_damage_goes_to_quarantine_and_the_rest_stays(node: Running, how: str, length: int) -> None:
    bad = noise(length)
    for data in (b"another", bad, *(noise(500, seed=number) for number in range(20))):
        put(node.store, data)
    harm(node, bad, how)
    scrubber = Scrubber(node.node, bytes_per_s=FAST, every_s=3600)
    async with trio.open_nursery() as nursery:
        await run_pass(scrubber, nursery, objects=22)
    assert (scrubber.place.objects, scrubber.place.damaged) == (21, 1)
    assert [path.name for path in node.files("quarantine")] == [f"{object_id(bad)}.0"]
    assert node.store.statistics().quarantined == 1
    assert not node.object_file(object_id(bad)).exists()
    assert len(node.files("objects")) == 21


async def test_what_the_disk_will_not_read_stays_where_it_is(node: Running, monkeypatch: Any) -> None:
    for data in (b"one", b"two", b"three"):
        put(node.store, data)
    read = node.store.read

    def fail(name: str, **how: Any) -> Any:
        if name == object_id(b"two"):
            raise StorageError("read_at: Input/output error")
        return read(name, **how)

    monkeypatch.setattr(node.store, "read", fail)
    scrubber = Scrubber(node.node, bytes_per_s=FAST, every_s=3600)
    async with trio.open_nursery() as nursery:
        await run_pass(scrubber, nursery, objects=3)
    assert (scrubber.place.objects, scrubber.place.unreadable) == (2, 1)
    assert len(node.files("objects")) == 3


async def test_a_disk_that_takes_no_more_is_scrubbed_all_the_same(node: Running, monkeypatch: Any) -> None:
    """Such as one that a failure made read-only: only the place is not kept."""
    for number in range(5):
        put(node.store, b"%d" % number)

    def fail(*_: Any) -> None:
        raise StorageError("create a file: Read-only file system")

    monkeypatch.setattr(scrub, "SAVE_S", 0.0)  # after each object
    monkeypatch.setattr(scrub, "write_file_durably", fail)
    scrubber = Scrubber(node.node, bytes_per_s=FAST, every_s=3600)
    async with trio.open_nursery() as nursery:
        await run_pass(scrubber, nursery, objects=5)


async def test_a_folder_that_cannot_be_listed_keeps_no_other_from_being_read(node: Running, monkeypatch: Any) -> None:
    for number in range(9):
        put(node.store, b"%d" % number)
    bad = sorted(object_id(b"%d" % number) for number in range(9))[3]
    entries = disk.entries

    def list_some(path: str) -> Any:
        if path.endswith(f"{bad[:2]}/{bad[2:4]}"):
            raise StorageError("entries: Input/output error")
        return entries(path)

    monkeypatch.setattr(disk, "entries", list_some)
    scrubber = Scrubber(node.node, bytes_per_s=FAST, every_s=3600)
    async with trio.open_nursery() as nursery:
        await run_pass(scrubber, nursery, objects=8)


async def test_it_reads_from_the_disk_and_not_from_memory(node: Running, monkeypatch: Any) -> None:
    for data in (b"one", b"two"):
        put(node.store, data)
    dropped: list[int] = []
    forget = disk.forget_cached
    monkeypatch.setattr(disk, "forget_cached", lambda descriptor: (dropped.append(descriptor), forget(descriptor)))
    scrubber = Scrubber(node.node, bytes_per_s=FAST, every_s=3600)
    async with trio.open_nursery() as nursery:
        await run_pass(scrubber, nursery, objects=2)
    assert len(dropped) == 2


async def test_a_restart_goes_on_from_the_saved_place(node: Running, monkeypatch: Any) -> None:
    """Ended in the middle of a pass: the place on disk is one that it was at, and the next scrubber begins there."""
    ids = sorted(object_id(b"%d" % number) for number in range(60))
    for number in range(60):
        put(node.store, b"%d" % number)
    monkeypatch.setattr(scrub, "SAVE_S", 0.0)  # after each object
    slow = Scrubber(node.node, bytes_per_s=SEEK_BYTES * 100, every_s=3600)  # a hundred objects a second
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.serve)
        await wait_until(lambda: slow.place.objects >= 20)
        nursery.cancel_scope.cancel()
    assert 20 <= slow.place.objects < 60
    resumed = Scrubber(node.node, bytes_per_s=FAST, every_s=3600)
    place = resumed._load()
    assert slow.place.objects - 1 <= place.objects <= slow.place.objects
    assert (place.after, place.done) == (ids[place.objects - 1], False)
    read = node.store.read
    again: list[str] = []
    monkeypatch.setattr(node.store, "read", lambda name, **how: (again.append(name), read(name, **how))[1])
    async with trio.open_nursery() as nursery:
        await run_pass(resumed, nursery, objects=60)
    assert again == ids[place.objects :]


@pytest.mark.parametrize("left", [b"", b"{", b'{"after": 7}', b"\xff"])
async def test_a_place_that_cannot_be_read_begins_anew(node: Running, left: bytes) -> None:
    put(node.store, b"one")
    (node.folder / "scrub").write_bytes(left)
    scrubber = Scrubber(node.node, bytes_per_s=FAST, every_s=3600)
    async with trio.open_nursery() as nursery:
        await run_pass(scrubber, nursery, objects=1)


async def test_a_node_keeps_answering_while_it_is_scrubbed(node: Running) -> None:
    put(node.store, noise(1000))
    scrubber = Scrubber(node.node, bytes_per_s=FAST, every_s=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrubber.serve)
        for number in range(20):
            put(node.store, noise(1000, seed=100 + number))
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert (node.files("quarantine"), len(node.files("objects"))) == ([], 21)
    assert raw_id(noise(1000)).hex() in {path.name for path in node.files("objects")}


@given(
    began_s=st.floats(0, 2e9), now_s=st.floats(0, 2e9), every_s=st.floats(0, 1e8), done=st.booleans()
)  # also clocks that were set back
def test_the_rest_between_passes_is_never_longer_than_a_period(
    began_s: float, now_s: float, every_s: float, done: bool
) -> None:
    found = scrubplace.rest_s(Place(began_at_s=began_s, done=done), now_s, every_s)
    assert 0 <= found <= every_s
    assert done or found == 0


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 1 << 22)), max_size=50), st.integers(1000, 1 << 30))
def test_the_pace_is_kept_and_idle_time_is_not_made_up_for(steps: list[tuple[float, int]], bytes_per_s: int) -> None:
    now_s, due, read = 0.0, 0.0, 0
    for idle_s, size in steps:
        now_s = max(now_s, due) + idle_s
        due = scrubplace.due_s(due, now_s, size, bytes_per_s)
        read += size
        assert due >= now_s + size / bytes_per_s * 0.999
    assert due >= read / bytes_per_s * 0.999
