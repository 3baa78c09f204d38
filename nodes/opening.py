"""A store's folder: its lock, where objects are, leftovers of uploads, the disk's incarnation. Everything blocks."""

import fcntl
import math
import os
import re
import time
import uuid
from collections.abc import Container
from pathlib import Path
from typing import Final

from transfer import disk
from transfer.durable import write_file_durably
from transfer.errors import FascicleError, SettingsError, StorageError
from transfer.log import get_logger

log = get_logger()
PARTIAL_LIFE_S: Final = 7 * 24 * 3600.0
PARTIAL_NAME: Final = re.compile(r"([0-9a-f]{64})\.partial\Z")
INCARNATION_BYTES: Final = 32
INCARNATION: Final = re.compile(r"[0-9a-f]{32}\Z")


def object_path(folder: Path | str, object_id: str) -> str:
    """Return where the object of a checked id is."""
    return f"{folder}/objects/{object_id[:2]}/{object_id[2:4]}/{object_id}"


def is_taken_back(folder: Path, object_id: str) -> bool:
    """Tell whether the name that a failed group gave is gone; a disk that became read-only shows it, and loses it."""
    try:
        return not disk.exists(object_path(folder, object_id))
    except FascicleError:
        return False


def lock_folder(folder: Path) -> int:
    """Lock `folder` for this process until the returned descriptor is closed.

    Raises:
        SettingsError: another process has it.
    """
    descriptor = disk.open_or_create(str(folder / "lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        disk.close(descriptor)
        raise SettingsError(f"{folder} is in use by another node; give each node a folder of its own") from error
    return descriptor


def clear_incoming(folder: Path, now_s: float | None = None) -> None:
    """Remove temporary files, and partial uploads that are a week old or whose object is stored.

    Where a folder of objects cannot be read, a partial upload of one stays: the others are served all the same.
    """
    oldest_s = (time.time() if now_s is None else now_s) - PARTIAL_LIFE_S
    for entry in disk.entries(str(folder / "incoming")):
        partial = PARTIAL_NAME.match(entry.name)
        if partial is None or entry.stat(follow_symlinks=False).st_mtime < oldest_s or _is_stored(folder, partial[1]):
            disk.unlink(entry.path)


def _is_stored(folder: Path, object_id: str) -> bool:
    try:
        return disk.exists(object_path(folder, object_id))
    except StorageError as error:
        log.error("partial_upload_kept", object_id=object_id, reason=error.message)
        return False


def drop_oldest_partial(folder: Path, writers: Container[str]) -> bool:
    """Remove the partial upload that has waited longest, of those without a writer; tells whether there was one."""
    waiting = [
        entry
        for entry in disk.entries(str(folder / "incoming"))
        if (name := PARTIAL_NAME.match(entry.name)) is not None and name[1] not in writers
    ]
    if not waiting:
        return False
    oldest = min(waiting, key=_changed_at_s)
    disk.unlink(oldest.path)
    log.info("partial_upload_dropped", name=oldest.name)
    return True


def _changed_at_s(entry: os.DirEntry[str]) -> float:
    """Return when a file changed last; one that was made an object since the folder was read makes way for nobody."""
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return math.inf


def read_incarnation(path: Path) -> str:
    """Return the id of this life of the disk, made durable when there is none.

    Raises:
        StorageError: there is a file, and it holds something else.
    """
    if not disk.exists(str(path)):
        write_file_durably(path, uuid.uuid4().hex.encode())
    descriptor = disk.open_to_read(str(path))
    try:
        text = bytes(disk.read_at(descriptor, INCARNATION_BYTES + 1, 0)).decode("ascii", "replace")
    finally:
        disk.close(descriptor)
    if INCARNATION.match(text) is None:
        raise StorageError(f"{path} is damaged; with it removed, this node counts as new")
    return text


def free_name(folder: str, name: str) -> str:
    """Return a path in `folder` that is not taken: `name`, a dot and the first free number."""
    number = 0
    while disk.exists(path := os.path.join(folder, f"{name}.{number}")):
        number += 1
    return path
