"""The durable order, and nothing else: temporary file -> flush of data -> rename -> flush of names -> only then answer.

Many files share one pair of flushes (group commit). On Linux from 5.8 on `syncfs` on the folder serves a whole group
with two calls; measured on ext4, 512 files of 10 KB: 15 + 11 ms, against 78 + 47 ms for fdatasync of each file and
fsync of each folder. It also waits for whatever others have written there: nodes like a file system of their own. A
group of one, and other systems, flush file by file.

A failed flush is never tried again, because the kernel forgets the pages that it could not write: the whole group is
abandoned and its names are removed. Everything here blocks. Refuses to do: formats and names of files.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Final, NamedTuple, TypeVar

from typing_extensions import Buffer

from transfer import disk
from transfer.errors import FascicleError

T = TypeVar("T")
FLUSH_THREADS: Final = 8
FEW: Final = 3  # the first flush carries most of what the others would; a thread costs more
_flushers: Final = ThreadPoolExecutor(FLUSH_THREADS, thread_name_prefix="flush")
_serial = itertools.count(time.time_ns())  # a killed process of the same number (1, in containers) may have left names


class Finished(NamedTuple):
    """A temporary file that is written whole and still open, and the name that it shall have.

    `opened_early`: the file was written, or an old one cut off, before the group was opened, so an earlier flush of the
    file system may have taken the report of a failure; the file's own descriptor (open since then) is asked as well.
    """

    descriptor: int
    temporary: str
    final: str
    opened_early: bool = False


class Volume:
    """One folder tree on one file system. Groups are published one after the other, from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.publishing = RLock()  # held where names appear or go; owners take it to look and act in one step
        self._durable_folders = {self.root}

    @contextmanager
    def open_group(self) -> Iterator["Group"]:
        """Open a group before its first file is written: the flush reports failures from here on."""
        descriptor = disk.open_folder(self.root)
        try:
            yield Group(self, descriptor)
        finally:
            disk.close(descriptor)

    def flush_everything(self) -> None:
        """Make all that is visible in this tree durable: what a killed process renamed may not be yet."""
        if not disk.CAN_FLUSH_FILE_SYSTEM:
            os.sync()
            return
        with self.open_group() as group:
            disk.flush_file_system(group.descriptor)

    def move(self, source: str, target: str) -> None:
        """Rename a durable file within the tree; on return the new name is durable and the old one gone."""
        with self.publishing:
            self.make_folder(os.path.dirname(target))
            disk.rename(source, target)
            folders = self.unsettled_folders([target])
            _in_parallel(disk.flush_folder, {*folders, os.path.dirname(source)})
            self.settle(folders)

    def make_folder(self, path: str) -> None:
        """Make a folder, which is not durable before the flush of `unsettled_folders`."""
        if path in self._durable_folders and disk.exists(path):
            return
        disk.make_folders(path)
        if path in self._durable_folders:  # someone removed it, who knows how much above it
            self._durable_folders = {self.root}

    def unsettled_folders(self, finals: Iterable[str]) -> set[str]:
        """Return the folders to flush for these names: their own, and those above whose entries may be new."""
        wanted = set()
        for final in finals:
            folder = os.path.dirname(final)
            wanted.add(folder)
            while folder not in self._durable_folders and len(folder) > len(self.root):
                folder = os.path.dirname(folder)
                wanted.add(folder)
        return wanted

    def settle(self, folders: Iterable[str]) -> None:
        """Note that these folders, and the way to them, are durable."""
        self._durable_folders.update(folders)


class Group:
    """Files that become durable together; made by `Volume.open_group`, published once."""

    def __init__(self, volume: Volume, descriptor: int) -> None:
        self._volume = volume
        self.descriptor = descriptor

    def publish(self, files: Sequence[Finished]) -> list[bool]:
        """Make all files durable under their final names, then return; True where the name is new.

        A final name that is there already is kept (the same content has it) and the temporary file removed; it is
        durable too on return. Descriptors stay open. On failure no file of the group keeps a name.

        Raises:
            StorageError, FullError: the group is abandoned.
        """
        with self._volume.publishing:
            renamed: list[str] = []
            try:
                self._flush_data(files)
                fresh = [self._rename(file, renamed) for file in files]
                self._flush_names(files)
            except FascicleError as error:
                _remove([*renamed, *(file.temporary for file in files)], error)
                raise
            return fresh

    def _flush_data(self, files: Sequence[Finished]) -> None:
        if not _flushes_whole(files):
            _in_parallel(disk.flush_data, [file.descriptor for file in files])
            return
        disk.flush_file_system(self.descriptor)
        for file in files:
            if file.opened_early:
                disk.flush_data(file.descriptor)

    def _rename(self, file: Finished, renamed: list[str]) -> bool:
        if disk.exists(file.final):
            disk.unlink(file.temporary)
            return False
        self._volume.make_folder(os.path.dirname(file.final))
        disk.rename(file.temporary, file.final)
        renamed.append(file.final)
        return True

    def _flush_names(self, files: Sequence[Finished]) -> None:
        folders = self._volume.unsettled_folders(file.final for file in files)
        if _flushes_whole(files):
            disk.flush_file_system(self.descriptor)
        else:
            _in_parallel(disk.flush_folder, folders)
        self._volume.settle(folders)


def write_file_durably(path: Path, data: Buffer, mode: int = 0o640) -> None:
    """Put `data` at `path` in the durable order, in place of what was there; its folder must exist.

    `mode`: who may read it (0o600 for secrets, from the first byte on).

    Raises:
        StorageError, FullError: `path` is as it was before; where only the last flush failed, it may be as it is to be.
    """
    temporary = f"{path}.{os.getpid()}.{next(_serial)}.temporary"
    try:
        descriptor = disk.create(temporary, mode)
        try:
            disk.write_at(descriptor, [data], 0)
            disk.flush_data(descriptor)
        finally:
            disk.close(descriptor)
        disk.rename(temporary, str(path))
    except FascicleError as error:
        _remove([temporary], error)
        raise
    disk.flush_folder(str(path.parent))


def make_folder_durably(path: Path, mode: int = 0o750) -> None:
    """Make a folder (of `mode`) and what is missing above it; on return all of it is durable."""
    missing = [folder for folder in (path, *path.parents) if not disk.exists(str(folder))]
    disk.make_folders(str(path), mode)
    for folder in missing or [path]:
        disk.flush_folder(str(folder.parent))


def _flushes_whole(files: Sequence[Finished]) -> bool:
    return len(files) > 1 and disk.CAN_FLUSH_FILE_SYSTEM


def _in_parallel(action: Callable[[T], None], items: Iterable[T]) -> None:
    """Do `action` to each, several at once (the disk joins their flushes); raises the first failure."""
    found = list(items)
    if len(found) <= FEW:
        for item in found:
            action(item)
    else:
        list(_flushers.map(action, found))


def _remove(paths: Iterable[str], cause: FascicleError) -> None:
    """Remove names after a failure; what cannot be removed either is told with the cause."""
    for path in paths:
        try:
            disk.unlink(path)
        except FascicleError as error:
            cause.add_note(f"and not removed: {error.message}")
