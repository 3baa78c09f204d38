"""What becomes of files that every destination has, and of those that changed meanwhile."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agent.after import Rule, clear
from agent.items import SPOOL, File, Item, NewItem, Outcome, Priority, stamp_of
from agent.queue import Queue
from agent.release import release
from agent.spool import open_spool
from transfer.objects import object_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def sent(path: Path, content: bytes) -> Item:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    found = path.stat()
    file = File(os.fsencode(path), found.st_size, stamp_of(found))
    return Item(1, str(path.parent), file, path.name, Priority.NORMAL, 0.0, object_id(content))


def alter_in_secret(path: Path, content: bytes) -> None:
    found = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_keep(folder: Path) -> None:
    item = sent(folder / "a", b"a")
    cleared = clear([item], Rule(str(folder)))
    assert (cleared.kept, cleared.forgotten) == ([item], [])
    assert (folder / "a").read_bytes() == b"a"


def test_delete(folder: Path) -> None:
    item = sent(folder / "a", b"a")
    assert clear([item], Rule(str(folder), "delete")).forgotten == [item]
    assert list(folder.iterdir()) == []
    assert clear([item], Rule(str(folder), "delete")).forgotten == [item]  # killed before the queue heard of it


def test_move_keeps_the_relative_path_and_overwrites_nothing(folder: Path, tmp_path: Path) -> None:
    rule = Rule(str(folder), "move", str(tmp_path / "sent"))
    for content in (b"one", b"two"):
        clear([sent(folder / "sub" / "a", content)], rule)
    assert (tmp_path / "sent" / "sub" / "a").read_bytes() == b"one"
    assert (tmp_path / "sent" / "sub" / f"a.{object_id(b'two')[:16]}").read_bytes() == b"two"
    assert list((folder / "sub").iterdir()) == []


def test_move_to_another_file_system(folder: Path) -> None:
    target = Path("/dev/shm") / f"fascicle-test-{os.getpid()}"
    if not target.parent.is_dir() or target.parent.stat().st_dev == folder.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    try:
        clear([sent(folder / "a", b"a" * 3_000_000)], Rule(str(folder), "move", str(target)))
        assert [each.name for each in target.iterdir()] == ["a"]
        assert (target / "a").read_bytes() == b"a" * 3_000_000
        assert list(folder.iterdir()) == []
    finally:
        (target / "a").unlink(missing_ok=True)
        target.rmdir()


def test_a_copy_is_nobody_s_to_read_until_it_has_its_mode(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, copystat, modes = os.rename, shutil.copystat, list[tuple[int, int]]()

    def rename_here_only(source: str, target: Path) -> None:
        if source == str(folder / "a"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)
        rename(source, target)

    def look(source: str, target: Path) -> None:
        modes.append((target.stat().st_mode & 0o777, target.stat().st_size))
        copystat(source, target)

    item = sent(folder / "a", b"a" * 3)
    (folder / "a").chmod(0o640)
    item = replace(item, file=File(item.file.path, 3, stamp_of((folder / "a").stat())))
    monkeypatch.setattr(os, "rename", rename_here_only)
    monkeypatch.setattr(shutil, "copystat", look)
    before = os.umask(0)
    try:
        clear([item], Rule(str(folder), "move", str(tmp_path / "sent")))
    finally:
        os.umask(before)
    assert modes == [(0o600, 3)]
    assert (tmp_path / "sent" / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("replaces", [True, False], ids=["another file", "rewritten"])
def test_what_takes_the_place_of_a_file_while_it_is_copied_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: bool
) -> None:
    rename, fsync = os.rename, os.fsync

    def rename_here_only(source: str, target: Path) -> None:
        if source == str(folder / "a"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)
        rename(source, target)

    def fsync_for_long(descriptor: int) -> None:
        fsync(descriptor)
        if replaces:
            (tmp_path / "new").write_bytes(b"new")
            rename(tmp_path / "new", folder / "a")
        else:
            alter_in_secret(folder / "a", b"new")
        monkeypatch.setattr(os, "fsync", fsync)

    item = sent(folder / "a", b"old")
    monkeypatch.setattr(os, "rename", rename_here_only)
    monkeypatch.setattr(os, "fsync", fsync_for_long)
    (tmp_path / "sent").mkdir()
    monkeypatch.setattr("agent.after.make_folder_durably", lambda _: None)
    assert clear([item], Rule(str(folder), "move", str(tmp_path / "sent"))).forgotten == [item]
    assert (folder / "a").read_bytes() == b"new"
    assert (tmp_path / "sent" / "a").read_bytes() == b"old"


def test_move_of_a_long_name_that_is_taken(folder: Path, tmp_path: Path) -> None:
    name = "n" * 255
    for content in (b"one", b"two"):
        clear([sent(folder / name, content)], Rule(str(folder), "move", str(tmp_path / "sent")))
    assert sorted(path.read_bytes() for path in (tmp_path / "sent").iterdir()) == [b"one", b"two"]


@pytest.mark.parametrize("after", ["keep", "move", "delete"])
def test_a_file_that_changed_is_not_touched(folder: Path, tmp_path: Path, after: str) -> None:
    item = sent(folder / "a", b"a")
    (folder / "a").write_bytes(b"new")
    cleared = clear([item], Rule(str(folder), after, str(tmp_path / "sent")))
    assert (cleared.kept, cleared.forgotten) == ([], [item])
    assert (folder / "a").read_bytes() == b"new"


@pytest.mark.parametrize("after", ["move", "delete"])
def test_other_bytes_behind_the_same_length_and_time_are_not_touched(folder: Path, tmp_path: Path, after: str) -> None:
    item = sent(folder / "a", b"a")
    alter_in_secret(folder / "a", b"b")
    assert clear([item], Rule(str(folder), after, str(tmp_path / "sent"))).kept == []
    assert (folder / "a").read_bytes() == b"b"


def test_a_file_that_cannot_be_moved_stays_and_is_not_sent_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_bytes(b"a file where the folder should be")
    item = sent(folder / "a", b"a")
    assert clear([item], Rule(str(folder), "move", str(tmp_path / "blocked" / "sent"))).kept == [item]
    assert (folder / "a").read_bytes() == b"a"


async def deliver_all(queue: Queue, contents: dict[bytes, bytes]) -> None:
    for item in await queue.ready("cloud", 0, 100):
        name = object_id(contents[item.file.path])
        await queue.record("cloud", [Outcome(item.item_id, "done", object_id=name)])


async def test_spooled_and_watched_files_are_released(folder: Path, queue: Queue, tmp_path: Path) -> None:
    kept, gone = sent(folder / "kept", b"k"), sent(tmp_path / "other" / "gone", b"g")
    async with open_spool(tmp_path / "spool", reserve_bytes=0) as spool:
        incoming = await spool.begin("test")
        await incoming.write(b"s")
        spooled = await incoming.finish()
        files = [(item.source, item.file) for item in (kept, gone)] + [(SPOOL, File(spooled.name.encode(), 1, 0))]
        await queue.add([NewItem(source, file, "n", Priority.NORMAL, ["cloud"]) for source, file in files])
        rules = {gone.source: Rule(gone.source, "delete")}
        assert await release(queue, spool, rules) == 0
        await deliver_all(queue, {kept.file.path: b"k", gone.file.path: b"g", spooled.name.encode(): b"s"})
        assert await release(queue, spool, rules) == 3
        assert await release(queue, spool, rules) == 0
        assert await spool.scan() == []
    assert (folder / "kept").exists()
    assert not (tmp_path / "other" / "gone").exists()
    assert await queue.unknown(kept.source, [kept.file]) == []
