"""Inspection: which files may be sent, what they are called, and what is said of those that may not."""

import os
import socket
import threading
from pathlib import Path

import pytest

from tests.store.objects import dicom, element
from transfer import inspection
from transfer.errors import NotDicomError, TruncatedError, UnusableFileError
from transfer.inspection import BLOCK_BYTES, BODY_BYTES_MAX, MEDIA_STORAGE_DIRECTORY, blocks, inspect, read_again
from transfer.objects import object_id

LARGE = dicom(pixels=BODY_BYTES_MAX + 12_346)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


def assert_unusable(path: Path, kind: type[UnusableFileError], why: str, *, any_file: bool = False) -> None:
    with pytest.raises(kind) as refused:
        inspect(path, any_file=any_file)
    assert type(refused.value) is kind
    assert refused.value.message.startswith(f"{path}: ")
    assert why in refused.value.message


@pytest.mark.parametrize("any_file", [False, True])
def test_a_small_file_is_an_object_with_its_bytes(path: Path, any_file: bool) -> None:
    path.write_bytes(dicom())
    found = inspect(path, any_file=any_file)
    assert (found.object_id, found.size_bytes, found.body) == (object_id(dicom()), len(dicom()), dicom())


@pytest.mark.parametrize("any_file", [False, True])
def test_a_large_file_is_read_in_blocks_and_not_kept(path: Path, any_file: bool) -> None:
    path.write_bytes(LARGE)
    found = inspect(path, any_file=any_file)
    assert (found.object_id, found.size_bytes, found.body) == (object_id(LARGE), len(LARGE), None)
    again = list(blocks(path, len(LARGE)))
    assert b"".join(again) == LARGE
    assert {len(block) for block in again[:-1]} == {BLOCK_BYTES}


@pytest.mark.parametrize("any_file", [False, True])
@pytest.mark.parametrize("data", [dicom(), LARGE], ids=["small", "large"])
def test_a_file_system_that_gives_less_at_once_gives_the_whole_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, any_file: bool
) -> None:
    path.write_bytes(data)
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, length: read(descriptor, max(1, min(length // 3, 100_000))))
    assert inspect(path, any_file=any_file).object_id == object_id(data)


@pytest.mark.parametrize("data", [b"x" * 100, LARGE], ids=["small", "large"])
def test_a_file_that_ends_before_its_length_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    path.write_bytes(data)
    read, left = os.read, [len(data) // 2]

    def end_early(descriptor: int, length: int) -> bytes:
        found = read(descriptor, min(length, left[0]))
        left[0] -= len(found)
        return found

    monkeypatch.setattr(os, "read", end_early)
    assert_unusable(path, UnusableFileError, "the file is changing", any_file=True)


def test_a_symbolic_link_is_followed(path: Path, tmp_path: Path) -> None:
    path.write_bytes(dicom())
    (tmp_path / "link").symlink_to(path)
    assert inspect(tmp_path / "link", any_file=False).object_id == object_id(dicom())


@pytest.mark.parametrize("any_file", [False, True])
def test_an_empty_file_is_refused(path: Path, any_file: bool) -> None:
    path.touch()
    assert_unusable(path, UnusableFileError, "the file is empty", any_file=any_file)


@pytest.mark.parametrize("any_file", [False, True])
def test_a_fifo_is_refused_and_not_waited_for(path: Path, any_file: bool) -> None:
    os.mkfifo(path)
    assert_unusable(path, UnusableFileError, "not a regular file", any_file=any_file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert_unusable(tmp_path, UnusableFileError, "not a regular file", any_file=True)


def test_a_device_is_refused() -> None:
    assert_unusable(Path("/dev/zero"), UnusableFileError, "not a regular file", any_file=True)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        assert_unusable(Path("s"), UnusableFileError, "cannot be read: No such device or address", any_file=True)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert_unusable(tmp_path / "one", UnusableFileError, "cannot be read: Too many levels of symbolic links")


def test_a_missing_file_and_a_dangling_link_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    for missing in (path, tmp_path / "link", path / "below", tmp_path / ("x" * 300)):
        assert_unusable(missing, UnusableFileError, "cannot be read: ")


def test_an_unreadable_file_is_refused(path: Path) -> None:
    path.write_bytes(dicom())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    assert_unusable(path, UnusableFileError, "cannot be read: Permission denied", any_file=True)


def test_a_read_that_fails_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, size_bytes: int) -> bytes:
        raise OSError(5, "Input/output error")

    path.write_bytes(dicom())
    monkeypatch.setattr(inspection.os, "read", fail)
    assert_unusable(path, UnusableFileError, "reading failed: Input/output error")


@pytest.mark.parametrize("size_bytes", [1, 131, 132, 5000, BODY_BYTES_MAX + 1])
def test_what_is_not_dicom_is_refused_unless_any_file_is_wanted(path: Path, size_bytes: int) -> None:
    path.write_bytes(b"x" * size_bytes)
    assert_unusable(path, NotDicomError, "")
    assert inspect(path, any_file=True).object_id == object_id(b"x" * size_bytes)


@pytest.mark.parametrize("data", [dicom(), LARGE], ids=["small", "large"])
@pytest.mark.parametrize("missing_bytes", [1, 100, 600])
def test_a_truncated_file_is_refused_unless_any_file_is_wanted(path: Path, data: bytes, missing_bytes: int) -> None:
    path.write_bytes(data[:-missing_bytes])
    assert_unusable(path, TruncatedError, "")
    assert inspect(path, any_file=True).object_id == object_id(data[:-missing_bytes])


def test_a_dicomdir_is_no_image(path: Path) -> None:
    meta = element(2, 2, "UI", MEDIA_STORAGE_DIRECTORY) + element(2, 3, "UI", "1.2.3")
    meta += element(2, 0x10, "UI", "1.2.840.10008.1.2.1")
    length = b"\x02\0\0\0UL\x04\0" + len(meta).to_bytes(4, "little")
    path.write_bytes(bytes(128) + b"DICM" + length + meta + element(4, 0x1130, "CS", "SET"))
    assert_unusable(path, NotDicomError, "DICOMDIR")
    assert inspect(path, any_file=True).size_bytes == path.stat().st_size


@pytest.mark.parametrize("data", [dicom(), LARGE], ids=["small", "large"])
def test_a_file_that_grows_while_it_is_read_is_refused(
    path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(data)
    read = os.read

    def read_and_grow(descriptor: int, size_bytes: int) -> bytes:
        found = read(descriptor, size_bytes)
        if path.stat().st_size == len(data):
            with path.open("ab") as file:
                file.write(b"more")
        return found

    monkeypatch.setattr(inspection.os, "read", read_and_grow)
    assert_unusable(path, UnusableFileError, "the file is changing", any_file=True)


def test_a_file_that_shrinks_while_it_is_read_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(LARGE)
    read = os.read

    def read_and_cut(descriptor: int, size_bytes: int) -> bytes:
        found = read(descriptor, size_bytes)
        os.truncate(path, BLOCK_BYTES)
        return found

    monkeypatch.setattr(inspection.os, "read", read_and_cut)
    assert_unusable(path, UnusableFileError, "the file is changing", any_file=True)


def test_no_descriptor_is_left_open(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"no DICOM")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(NotDicomError):
            inspect(path, any_file=False)
        with pytest.raises(UnusableFileError):
            inspect(tmp_path, any_file=False)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_read_again_only_as_what_it_was(path: Path) -> None:
    path.write_bytes(dicom())
    assert read_again(path, object_id(dicom())) == dicom()
    path.write_bytes(dicom("1.2.99"))
    with pytest.raises(UnusableFileError, match="changed while it was sent"):
        read_again(path, object_id(dicom()))
    path.unlink()
    with pytest.raises(UnusableFileError, match="cannot be read"):
        read_again(path, object_id(dicom()))


@pytest.mark.parametrize("length", [len(LARGE) - 1, len(LARGE) + 1, BLOCK_BYTES])
def test_a_large_file_that_is_longer_or_shorter_by_now_is_refused_at_its_end(path: Path, length: int) -> None:
    path.write_bytes(LARGE)
    os.truncate(path, length)
    with pytest.raises(UnusableFileError, match="changed while it was sent"):
        list(blocks(path, len(LARGE)))


def test_a_large_file_that_grows_as_it_is_sent_is_refused_all_the_same(path: Path) -> None:
    path.write_bytes(LARGE)
    with path.open("ab") as file, pytest.raises(UnusableFileError, match="changed while it was sent"):
        for number, block in enumerate(blocks(path, len(LARGE))):
            assert number * BLOCK_BYTES <= len(LARGE)
            file.write(block)
            file.flush()


def test_a_large_file_that_is_gone_by_now_is_refused(path: Path) -> None:
    with pytest.raises(UnusableFileError, match="reading failed: No such file"):
        list(blocks(path, 10))


def test_a_fifo_that_has_a_writer_is_refused_too(path: Path) -> None:
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(b""), daemon=True)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer.start()
    assert_unusable(path, UnusableFileError, "not a regular file", any_file=True)
    writer.join()
    os.close(reader)
