"""What becomes of a watched file when every destination has committed it: it stays, moves, or is deleted.

A file that is not the one that was sent (length, times of change, and before it moves or goes also its bytes' hash)
is not touched: the watcher finds it again and it is sent again. Everything here blocks. Refuses to do: overwriting
a file in the target folder; touching a file that some destination does not have.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from blake3 import blake3

from agent.items import Item, mark_of, stamp_of
from agent.supervise import what_failed
from transfer import disk
from transfer.durable import make_folder_durably
from transfer.errors import FascicleError, StorageError
from transfer.log import get_logger

log = get_logger()
CHUNK_BYTES: Final = 1 << 20
NAME_BYTES_MAX: Final = 255
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with the files of a watched folder."""

    folder: str
    after: Literal["keep", "move", "delete"] = "keep"
    move_to: str = ""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Which items' files stay and are remembered, and which are gone or changed and so forgotten."""

    kept: list[Item]
    forgotten: list[Item]


def clear(items: Sequence[Item], rule: Rule) -> Cleared:
    """Apply `rule` to the files of `items`; on return what was moved or deleted is so durably.

    Raises:
        StorageError, FullError: a folder cannot be flushed; do it again.
    """
    cleared = Cleared([], [])
    folders: set[str] = set()
    for item in items:
        stays = _clear_one(item, rule, folders)
        (cleared.kept if stays else cleared.forgotten).append(item)
    for folder in sorted(folders):
        if os.path.isdir(folder):
            disk.flush_folder(folder)
    return cleared


def _clear_one(item: Item, rule: Rule, folders: set[str]) -> bool:
    """Return whether the file stays as it was sent; a file that cannot be moved or deleted stays, and is named."""
    path = os.fsdecode(item.file.path)
    try:
        if not _is_as_sent(path, item, by_hash=rule.after != "keep"):
            return False
        if rule.after == "keep":
            return True
        if rule.after == "move":
            folders.add(_move(path, _target(path, rule, item), item))
        else:
            os.unlink(path)
        folders.add(os.path.dirname(path))
    except FileNotFoundError:
        return False
    except (OSError, FascicleError) as error:
        log.warning(
            "after_failed", folder=rule.folder, file=mark_of(item.file.path), after=rule.after, error=what_failed(error)
        )
        return True
    return False


def _is_as_sent(path: str, item: Item, *, by_hash: bool) -> bool:
    if by_hash and _object_id(path) != item.object_id:
        return False
    found = os.lstat(path)  # after the hash: a change meanwhile shows
    return (found.st_size, stamp_of(found)) == (item.file.size_bytes, item.file.stamp)


def _object_id(path: str) -> str:
    hasher = blake3()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _target(path: str, rule: Rule, item: Item) -> Path:
    """Return where the file goes: the same relative path, or beside what stands there, named by its object id."""
    target = Path(rule.move_to) / os.path.relpath(path, rule.folder)
    if not os.path.lexists(target):
        return target
    suffix = f".{item.object_id[:16]}".encode()
    return target.with_name(os.fsdecode(os.fsencode(target.name)[: NAME_BYTES_MAX - len(suffix)] + suffix))


def _move(path: str, target: Path, item: Item) -> str:
    """Move the file, over file systems too; returns the target's folder, still to be flushed."""
    make_folder_durably(target.parent)
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        before = os.lstat(path)
        _copy(path, target, item)
        if _facts(os.lstat(path)) == _facts(before):  # else another stands there by now, to be sent: copying takes long
            os.unlink(path)
    return str(target.parent)


def _facts(found: os.stat_result) -> tuple[int, ...]:
    """Return what is other for another file, and for the same one once it was written to."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _copy(path: str, target: Path, item: Item) -> None:
    temporary = target.parent / f".{item.object_id[:32]}.part"
    try:
        with contextlib.suppress(FileNotFoundError):  # of a copy that was killed
            os.unlink(temporary)
        with open(path, "rb") as source, open(os.open(temporary, CREATE, 0o600), "wb") as copied:
            shutil.copyfileobj(source, copied, CHUNK_BYTES)
            copied.flush()
            shutil.copystat(path, temporary)  # its mode last: nobody reads it sooner who may not read the original
            os.fsync(copied.fileno())
        if _object_id(str(temporary)) != item.object_id:
            raise StorageError(f"{path}: the copy differs; the file stays")
        os.rename(temporary, target)
        disk.flush_folder(str(target.parent))
    finally:
        with contextlib.suppress(FileNotFoundError):  # renamed, as it was to be
            os.unlink(temporary)
