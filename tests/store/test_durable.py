import errno
import mmap
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from transfer import disk, keyfiles
from transfer.durable import Finished, Volume, make_folder_durably, write_file_durably
from transfer.errors import FullError, StorageError

CALLS = ["flush_data", "flush_file_system", "flush_folder", "rename", "unlink", "make_folders"]


@pytest.fixture
def calls(monkeypatch):
    """The names of the system calls that order durability, as they happen."""
    seen: list[str] = []
    for name in CALLS:
        call = getattr(disk, name)
        monkeypatch.setattr(disk, name, lambda *args, _call=call, _name=name: (seen.append(_name), _call(*args))[1])
    return seen


@pytest.fixture(params=[True, False], ids=["whole file system", "file by file"])
def whole(request, monkeypatch):
    if request.param and not disk.CAN_FLUSH_FILE_SYSTEM:
        pytest.skip("this kernel does not report failures from syncfs")
    monkeypatch.setattr(disk, "CAN_FLUSH_FILE_SYSTEM", request.param)
    return request.param


def finished(root: Path, name: str, data: bytes, *, early: bool = False) -> Finished:
    temporary = str(root / f"{name.replace('/', '_')}.new")
    descriptor = disk.create(temporary)
    disk.write_at(descriptor, [data], 0)
    return Finished(descriptor, temporary, str(root / name), early)


def publish(root: Path, *names: str, early: bool = False) -> list[bool]:
    volume = Volume(root)
    with volume.open_group() as group:
        files = [finished(root, name, name.encode(), early=early) for name in names]
        try:
            return group.publish(files)
        finally:
            for file in files:
                disk.close(file.descriptor)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def failing(number: int):
    def call(*_):
        raise disk._storage_error(OSError(number, os.strerror(number)), "flush")

    return call


def test_a_group_is_flushed_before_and_after_its_renames(tmp_path, calls, whole):
    assert publish(tmp_path, "a/1", "b/2", "b/3") == [True, True, True]
    assert files_of(tmp_path) == {"a/1": b"a/1", "b/2": b"b/2", "b/3": b"b/3"}
    order = [name for name in calls if name != "make_folders"]
    if whole:
        assert order == ["flush_file_system", "rename", "rename", "rename", "flush_file_system"]
    else:
        assert order == ["flush_data"] * 3 + ["rename"] * 3 + ["flush_folder"] * 3  # a, b, and above them


def test_a_group_of_one_flushes_its_file_and_the_folders_that_are_new(tmp_path, calls):
    assert publish(tmp_path, "ab/cd/1") == [True]
    assert calls == ["flush_data", "make_folders", "rename", "flush_folder", "flush_folder", "flush_folder"]


def test_folders_known_to_be_durable_are_not_flushed_again(tmp_path):
    volume = Volume(tmp_path)
    first = volume.unsettled_folders([str(tmp_path / "ab/cd/1")])
    assert first == {str(tmp_path / part) for part in (".", "ab", "ab/cd")}
    volume.settle(first)
    assert volume.unsettled_folders([str(tmp_path / "ab/cd/2")]) == {str(tmp_path / "ab/cd")}


@pytest.mark.skipif(not disk.CAN_FLUSH_FILE_SYSTEM, reason="this kernel does not report failures from syncfs")
def test_files_opened_early_are_asked_for_failures_of_their_own(tmp_path, calls):
    publish(tmp_path, "1", "2", early=True)
    assert calls[:3] == ["flush_file_system", "flush_data", "flush_data"]


def test_a_name_that_is_there_keeps_its_file(tmp_path, whole):
    (tmp_path / "1").write_bytes(b"old")
    assert publish(tmp_path, "1", "2") == [False, True]
    assert files_of(tmp_path) == {"1": b"old", "2": b"2"}


@pytest.mark.parametrize("call", ["flush_data", "flush_file_system", "rename", "make_folders", "flush_folder"])
@pytest.mark.parametrize(("number", "error"), [(errno.EIO, StorageError), (errno.ENOSPC, FullError)])
def test_after_a_failure_no_file_of_the_group_keeps_a_name(tmp_path, monkeypatch, whole, call, number, error):
    if (call in ("flush_data", "flush_folder") and whole) or (call == "flush_file_system" and not whole):
        pytest.skip("not called in this mode")
    monkeypatch.setattr(disk, call, failing(number))
    with pytest.raises(error):
        publish(tmp_path, "a/1", "b/2")
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.skipif(not disk.CAN_FLUSH_FILE_SYSTEM, reason="this kernel does not report failures from syncfs")
def test_a_failed_flush_is_not_tried_again_and_leaves_older_files_alone(tmp_path, monkeypatch, which):
    (tmp_path / "old").write_bytes(b"old")
    count = 0

    def flush(_):
        nonlocal count
        count += 1
        if count == which:
            failing(errno.EIO)()

    monkeypatch.setattr(disk, "flush_file_system", flush)
    with pytest.raises(StorageError):
        publish(tmp_path, "old", "1", "2")
    assert count == which
    assert files_of(tmp_path) == {"old": b"old"}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, calls):
    path = tmp_path / "state"
    write_file_durably(path, b"one")
    assert calls == ["flush_data", "rename", "flush_folder"]
    monkeypatch.setattr(disk, "flush_data", failing(errno.EIO))
    with pytest.raises(StorageError):
        write_file_durably(path, b"two")
    assert files_of(tmp_path) == {"state": b"one"}


LEFT = """
import os, sys
from pathlib import Path
from transfer import disk, durable
os.getpid = lambda: 1
if sys.argv[2] == "killed":
    disk.rename = lambda *_: os._exit(0)
durable.write_file_durably(Path(sys.argv[1]), sys.argv[2].encode())
"""


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path):
    for word in ("killed", "written"):
        subprocess.run([sys.executable, "-c", LEFT, str(tmp_path / "state"), word], check=True)
    assert (tmp_path / "state").read_bytes() == b"written"
    assert len(files_of(tmp_path)) == 2


def test_the_folder_of_a_key_is_durable_and_its_owners_alone(tmp_path, calls):
    keyfiles.write_file(tmp_path / "a" / "b" / "key.pem", b"key", keyfiles.PRIVATE)
    assert calls == ["make_folders", "flush_folder", "flush_folder", "flush_data", "rename", "flush_folder"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_folder_and_what_is_missing_above_it_are_made_durable(tmp_path, calls):
    make_folder_durably(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert calls == ["make_folders", "flush_folder", "flush_folder"]


def test_long_lists_of_buffers_are_written_whole(tmp_path):
    descriptor = disk.create(str(tmp_path / "f"))
    assert disk.write_at(descriptor, [b"ab", b"", *[b"c"] * 3000], 5) == 3007
    assert disk.read_at(descriptor, 4000, 0) == bytes(5) + b"ab" + b"c" * 3000
    disk.close(descriptor)


def test_a_short_write_goes_on_where_it_stopped(tmp_path, monkeypatch):
    write = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset: write(fd, [views[0][:3]], offset))
    descriptor = disk.create(str(tmp_path / "f"))
    disk.write_at(descriptor, [b"abcdefg", b"hijk"], 0)
    disk.close(descriptor)
    assert (tmp_path / "f").read_bytes() == b"abcdefghijk"


def refuse(*_):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize("direct", ["whole", "short", "none"])
@pytest.mark.parametrize("offset", [0, 1, 2048, 4095, 4096, 10_000])
@pytest.mark.parametrize("length", [0, 1, 2047, 4096, 4097, 8192, 20_000])
def test_writes_past_the_cache_are_like_others(tmp_path, monkeypatch, direct, offset, length):
    write = os.pwrite
    if direct == "short":
        monkeypatch.setattr(os, "pwrite", lambda fd, view, at: write(fd, view[:4096], at))
    if direct == "none":
        monkeypatch.setattr(os, "pwrite", refuse)
    data = random.Random(length).randbytes(length)
    (tmp_path / "f").write_bytes(b"x" * 50_000)
    descriptor = disk.open_or_create(str(tmp_path / "f"))
    with mmap.mmap(-1, 28_672) as scratch:
        disk.write_past_cache(descriptor, [data[:500], data[500:]], offset, scratch)
    disk.close(descriptor)
    assert (tmp_path / "f").read_bytes() == b"x" * offset + data + b"x" * (50_000 - offset - length)


def test_a_folder_that_someone_removed_is_made_again(tmp_path, whole):
    volume = Volume(tmp_path)
    for name in ("ab/cd/1", "ab/cd/2"):
        with volume.open_group() as group:
            file = finished(tmp_path, name, b"x")
            assert group.publish([file]) == [True]
            disk.close(file.descriptor)
        shutil.rmtree(tmp_path / "ab")
