"""Which files are taken, when, and that nothing else blocks, loops or is touched."""

import errno
import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from agent import watch
from agent.items import File, NewItem, Outcome, Priority
from agent.queue import Queue
from agent.walk import Pending, readable, settle, walk
from agent.watch import Watcher
from transfer import names
from transfer.objects import object_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def names_of(files: list[File]) -> list[str]:
    return sorted(os.path.basename(os.fsdecode(file.path)) for file in files)


def test_a_file_settles_when_it_looks_the_same_for_long_enough() -> None:
    small, large = File(b"a", 1, 1), File(b"a", 2, 2)
    settled, pending = settle({}, [small], 0.0, 2.0)
    assert settled == []
    settled, pending = settle(pending, [large], 1.9, 2.0)
    assert (settled, pending) == ([], {b"a": Pending(large, 1.9)})
    assert settle(pending, [large], 3.8, 2.0)[0] == []
    assert settle(pending, [large], 3.9, 2.0) == ([large], {})


def test_a_file_that_vanished_is_forgotten() -> None:
    assert settle({b"a": Pending(File(b"a", 1, 1), 0.0)}, [], 9.0, 2.0) == ([], {})


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20))
def test_what_settles_did_not_change_since_it_was_last_seen_to_change(sizes: list[int]) -> None:
    pending: dict[bytes, Pending] = {}
    for now_s, size_bytes in enumerate(sizes):
        file = File(b"a", size_bytes, 0)
        settled, pending = settle(pending, [file], float(now_s), 3.0)
        if settled:
            assert sizes[now_s - 3 : now_s + 1] == [size_bytes] * 4
            pending = {}


def test_only_regular_files_are_found_and_nothing_blocks_or_loops(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "b").write_bytes(b"bb")
    (folder / "a").write_bytes(b"a")
    (folder / ".hidden").write_bytes(b"")
    (folder / "half.part").write_bytes(b"")
    (folder / "loop").symlink_to(folder)
    (folder / "link").symlink_to(folder / "a")
    os.mkfifo(folder / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(folder, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{here}/socket")
    told: dict[bytes, str] = {}
    found = list(walk(os.fsencode(folder), [".*", "*.part"], told.__setitem__))
    assert names_of(found) == ["a", "b"]
    assert {os.path.basename(path): reason for path, reason in told.items()} == {
        b"loop": "a link is not followed",
        b"link": "a link is not followed",
        b"fifo": "not a regular file",
        b"socket": "not a regular file",
    }
    listener.close()
    os.close(here)


def test_long_and_foreign_names_are_found(folder: Path) -> None:
    odd = [b"n" * 255, b"caf\xe9", b"new\nline", "日本".encode()]
    for name in odd:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
    found = [os.path.basename(file.path) for file in walk(os.fsencode(folder), [], lambda *_: None)]
    assert sorted(found) == sorted(odd)


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    told: dict[bytes, str] = {}
    assert list(walk(b"/nowhere/at/all", [], told.__setitem__)) == []
    assert told == {b"/nowhere/at/all": "No such file or directory"}


def test_a_file_replaced_by_a_fifo_or_link_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder / "fifo")
    told: dict[bytes, str] = {}
    files = [File(os.fsencode(folder / name), 1, 1) for name in ("fifo", "link", "gone")]
    assert names_of(readable(files, told.__setitem__)) == ["fifo"]  # opened without waiting; the sender judges it
    assert [os.path.basename(path) for path in told] == [b"link"]


async def taken(queue: Queue) -> list[str]:
    return sorted(item.name for item in await queue.ready("cloud", 0, 1000))


async def test_growing_files_wait_and_settled_files_go(
    folder: Path, queue: Queue, autojump_clock: trio.testing.MockClock
) -> None:
    watcher = Watcher(str(folder), queue, destinations=["cloud"], settle_s=2.0)
    still, growing = folder / "still", folder / "growing"
    still.write_bytes(b"s")
    for size in range(5):
        growing.write_bytes(b"g" * size)
        await watcher.look()
        await trio.sleep(1.0)
    assert await taken(queue) == ["still"]
    assert watcher.statistics().settling == 1
    await trio.sleep(1.0)
    assert await watcher.look() == 1
    assert await taken(queue) == ["growing", "still"]
    assert await watcher.look() == 0


async def test_odd_names_travel_percent_encoded(
    folder: Path, queue: Queue, autojump_clock: trio.testing.MockClock
) -> None:
    (folder / "a b").mkdir()
    Path(os.fsdecode(os.fsencode(folder / "a b") + b"/caf\xe9")).write_bytes(b"x")
    watcher = Watcher(str(folder), queue, destinations=["cloud"])
    await watcher.look()
    await trio.sleep(2.0)
    await watcher.look()
    assert await taken(queue) == ["a%20b/caf%E9"]


async def test_many_files_that_cannot_be_read_do_not_keep_out_the_others(
    folder: Path, queue: Queue, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_some(path: bytes, flags: int) -> int:
        if b"locked" in path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return os_open(path, flags)

    os_open = os.open
    monkeypatch.setattr(os, "open", open_some)
    monkeypatch.setattr(watch, "CHUNK", 2)
    monkeypatch.setattr(watch, "PENDING_MAX", 4)
    for number in range(20):
        (folder / f"{number:02}-{'locked' if number % 2 else 'open'}").write_bytes(b"x")
    watcher = Watcher(str(folder), queue, destinations=["cloud"])
    for _ in range(12):
        await watcher.look()
        await trio.sleep(2.0)
    assert await taken(queue) == [f"{number:02}-open" for number in range(0, 20, 2)]
    assert len(watcher.statistics().troubles) == 10


async def test_a_path_that_no_name_can_be_made_of_goes_without(
    folder: Path, queue: Queue, autojump_clock: trio.testing.MockClock
) -> None:
    deep = folder.joinpath(*["d"] * names.DEPTH_MAX)
    deep.mkdir(parents=True)
    (deep / "a").write_bytes(b"x")
    (folder / "b").write_bytes(b"x")
    watcher = Watcher(str(folder), queue, destinations=["cloud"])
    await watcher.look()
    await trio.sleep(2.0)
    assert await watcher.look() == 2
    assert await taken(queue) == ["", "b"]  # the gateway refuses an offer whole for one name that it cannot take


async def test_vanishing_files_are_passed_over(
    folder: Path, queue: Queue, autojump_clock: trio.testing.MockClock
) -> None:
    (folder / "a").write_bytes(b"a")
    watcher = Watcher(str(folder), queue, destinations=["cloud"])
    await watcher.look()
    (folder / "a").unlink()
    await trio.sleep(5.0)
    assert await watcher.look() == 0
    assert watcher.statistics().settling == 0


async def test_trouble_is_told_once_and_for_as_long_as_it_lasts(folder: Path, queue: Queue) -> None:
    (folder / "link").symlink_to("nowhere")
    watcher = Watcher(str(folder), queue, destinations=["cloud"])
    for _ in range(3):
        await watcher.look()
    assert watcher.statistics().troubles == [(str(folder / "link"), "a link is not followed")]
    (folder / "link").unlink()
    await watcher.look()
    assert watcher.statistics().troubles == []


async def test_a_changed_file_is_taken_again(
    folder: Path, queue: Queue, autojump_clock: trio.testing.MockClock
) -> None:
    (folder / "a").write_bytes(b"a")
    watcher = Watcher(str(folder), queue, destinations=["cloud"])
    sizes = []
    for content in (b"a", b"ab"):
        (folder / "a").write_bytes(content)
        for _ in range(2):
            await watcher.look()
            await trio.sleep(2.0)
        sizes.append([item.file.size_bytes for item in await queue.ready("cloud", 0, 9)])
    assert sizes == [[1], [2]]


@pytest.mark.parametrize("way", ["another file", "rewritten"])
async def test_another_image_of_the_same_name_length_and_time_is_taken(folder: Path, queue: Queue, way: str) -> None:
    """As `cp -p` or `unzip` bring the next patient's, in which only the time of change of the inode is another."""
    watcher = Watcher(str(folder), queue, destinations=["cloud"], settle_s=0.0)
    for content in (b"patient A", b"patient B"):
        written = folder / "IM0001" if way == "rewritten" else folder / ".new"
        written.write_bytes(content)
        os.utime(written, ns=(5, 5))
        written.rename(folder / "IM0001")
        assert await watcher.look() == 1
        (item,) = await queue.ready("cloud", 0, 9)
        await queue.record("cloud", [Outcome(item.item_id, "done", object_id=object_id(content))])
        await queue.let_go(await queue.complete(9), keep=True)
        assert await watcher.look() == 0


async def test_a_file_of_a_time_far_away_keeps_out_nothing(folder: Path, queue: Queue) -> None:
    """2^63 nanoseconds are over in 2262, which file systems of today go beyond."""
    watcher = Watcher(str(folder), queue, destinations=["cloud"], settle_s=0.0)
    for name, time_s in (("far", 14_000_000_000), ("before", -2_000_000_000), ("now", 1_700_000_000)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time_s, time_s))
    if (folder / "far").stat().st_mtime_ns < 1 << 63:
        pytest.skip("the file system of the tests' folder ends before 2262")
    assert await watcher.look() == 3
    assert await taken(queue) == ["before", "far", "now"]


async def test_serve_takes_a_file(folder: Path, queue: Queue) -> None:
    (folder / "a").write_bytes(b"a")
    news = queue.news
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Watcher(str(folder), queue, destinations=["cloud"], settle_s=0.1).serve)
        with trio.fail_after(60):
            await news.wait()
        nursery.cancel_scope.cancel()
    assert await taken(queue) == ["a"]


async def keep(queue: Queue, folder: Path, paths: list[Path]) -> list[File]:
    files = [File(os.fsencode(path), 1, 1) for path in paths]
    await queue.add([NewItem(str(folder), file, "n", Priority.NORMAL, ["cloud"]) for file in files])
    items = await queue.ready("cloud", 0, 10_000)
    await queue.record("cloud", [Outcome(item.item_id, "done", object_id="id") for item in items])
    await queue.let_go(await queue.complete(10_000), keep=True)
    return files


async def test_the_memory_of_kept_files_is_pruned(folder: Path, queue: Queue) -> None:
    files = await keep(queue, folder, [folder / f"{number:04}" for number in range(1200)])
    (folder / "0700").write_bytes(b"x")
    assert await Watcher(str(folder), queue, destinations=["cloud"]).prune() == 1199
    assert len(await queue.unknown(str(folder), files)) == 1199


async def test_a_folder_that_is_not_mounted_is_not_forgotten(folder: Path, queue: Queue) -> None:
    files = await keep(queue, folder, [folder / "a"])
    for _ in range(2):
        assert await Watcher(str(folder), queue, destinations=["cloud"]).prune() == 0
        assert await queue.unknown(str(folder), files) == []
        if folder.exists():
            folder.rmdir()
