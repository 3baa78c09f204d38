"""Inspection: reads a source file once, judges whether it may be sent, and names the object that it is.

Blocking; runs in threads. A file that changes while it is read, is no regular file, is empty, is no DICOM or ends too
early is an UnusableFileError that says which; nothing waits on a FIFO or follows a loop. Refuses to do: sending.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from transfer.dicom import DataSetCheck, FileMeta, read_file_meta, sop_class_of_complete
from transfer.errors import NotDicomError, UnusableFileError
from transfer.objects import object_id as object_id_of

BODY_BYTES_MAX: Final = 8 << 20  # larger files are read again, block by block, when they are sent
BLOCK_BYTES: Final = 1 << 20
MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to send: where it is, the name that the catalogue keeps, and its size when it was listed.

    `named`: somebody named this very file, so that its not being DICOM is a failure; found in a folder it is ignored.
    """

    path: Path
    name: str
    size_bytes: int
    named: bool = True


@dataclass(frozen=True, slots=True)
class Inspected:
    """An object ready to be offered; `body` is None for a large one."""

    object_id: str
    size_bytes: int
    body: bytes | None


def inspect(path: Path, *, any_file: bool) -> Inspected:
    """Read and judge a file; `any_file` takes what is not DICOM, or truncated, too.

    Raises:
        UnusableFileError: see above; NotDicomError and TruncatedError are kinds of it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnusableFileError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return _inspect_open(path, descriptor, any_file=any_file)
    except OSError as error:
        raise UnusableFileError(f"{path}: reading failed: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _inspect_open(path: Path, descriptor: int, *, any_file: bool) -> Inspected:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise UnusableFileError(f"{path}: not a regular file")
    if before.st_size == 0:
        raise UnusableFileError(f"{path}: the file is empty")
    if before.st_size <= BODY_BYTES_MAX:
        inspected = _inspect_small(path, descriptor, before.st_size, any_file=any_file)
    else:
        inspected = _inspect_large(path, descriptor, any_file=any_file)
    after = os.fstat(descriptor)
    found = (inspected.size_bytes, after.st_size, after.st_mtime_ns)
    if found != (before.st_size, before.st_size, before.st_mtime_ns):
        raise UnusableFileError(f"{path}: the file is changing; send it again when it is finished")
    return inspected


def _inspect_small(path: Path, descriptor: int, size_bytes: int, *, any_file: bool) -> Inspected:
    # Room for just this: a larger buffer, cut afterwards, is new memory from the system for every file.
    body = os.read(descriptor, size_bytes)
    while len(body) < size_bytes and (more := os.read(descriptor, size_bytes - len(body))):
        body += more  # file systems that are a program or a network may give less at once
    if not any_file:
        with _named(path):
            _judge(sop_class_of_complete(body))
    return Inspected(object_id_of(body), len(body), body)


def _inspect_large(path: Path, descriptor: int, *, any_file: bool) -> Inspected:
    """Hash and check block by block: a mapping would end the process if somebody cut the file meanwhile (SIGBUS)."""
    check = None if any_file else _Check()
    hasher = blake3()
    length = 0
    while block := os.read(descriptor, BLOCK_BYTES):
        hasher.update(block)
        length += len(block)
        if check is not None:
            with _named(path):
                check.feed(memoryview(block))
    if check is not None:
        with _named(path):
            _judge(check.finish())
    return Inspected(hasher.hexdigest(), length, None)


class _Check:
    """`sop_class_of_complete` for a file that comes in blocks."""

    def __init__(self) -> None:
        self._meta: FileMeta | None = None
        self._data_set = DataSetCheck("")

    def feed(self, block: memoryview) -> None:
        if self._meta is not None:
            self._data_set.feed(block)
            return
        self._meta = read_file_meta(block)
        self._data_set = DataSetCheck(self._meta.transfer_syntax_uid)
        self._data_set.feed(block, self._meta.data_set_offset)

    def finish(self) -> str:
        sop_class_uid = self._data_set.finish(self._meta.sop_class_uid if self._meta else "")
        return sop_class_uid or self._data_set.identity(self._meta).sop_class_uid


def _judge(sop_class_uid: str) -> None:
    if sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        raise NotDicomError("a DICOMDIR, not an image")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file's path before what is wrong with it."""
    try:
        yield
    except UnusableFileError as error:
        raise type(error)(f"{path}: {error.message}") from error


def read_again(path: Path, object_id: str) -> bytes:
    """Return the bytes of a small file that was inspected before.

    Raises:
        UnusableFileError: it cannot be read, or is another object now.
    """
    again = inspect(path, any_file=True)
    if again.object_id != object_id or again.body is None:
        raise UnusableFileError(f"{path}: the file changed while it was sent; send it again")
    return again.body


def check_again(path: Path, object_id: str) -> None:
    """Read all of a file that was inspected before, of any size, and keep nothing of it.

    Raises:
        UnusableFileError: it cannot be read, or is another object now.
    """
    if inspect(path, any_file=True).object_id != object_id:
        raise UnusableFileError(f"{path}: the file changed while it was sent; send it again")


def head(path: Path) -> bytes:
    """Return the first bytes of a file, among them, in an image, all that is before the pixel data.

    Raises:
        UnusableFileError: it cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(BLOCK_BYTES)
    except OSError as error:
        raise UnusableFileError(f"{path}: reading failed: {error.strerror}") from error


def blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Yield a large file, once inspected with `size_bytes`, again in blocks of 1 MiB.

    Raises:
        UnusableFileError: it cannot be read, or is not as long as it was.
    """
    try:
        with path.open("rb", buffering=0) as file:
            length = 0
            while length <= size_bytes and (block := file.read(BLOCK_BYTES)):
                length += len(block)
                yield block
    except OSError as error:
        raise UnusableFileError(f"{path}: reading failed: {error.strerror}") from error
    if length != size_bytes:
        raise UnusableFileError(f"{path}: the file changed while it was sent; send it again")
