"""What the queue speaks of: files, items, what became of them, and what is still to go. Values only."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal

SPOOL: Final = ""  # the source of received objects; a watched folder's source is its path


class Priority(IntEnum):
    """What goes first."""

    STAT = 0
    NORMAL = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was seen: its path (bytes; of a spooled object its name), length, and `stamp_of` it."""

    path: bytes
    size_bytes: int
    stamp: int


def mark_of(path: bytes) -> str:
    """Return what the log has for a file's path, which may name a patient: the head of `printf %s PATH | sha256sum`."""
    return hashlib.sha256(path).hexdigest()[:16]


def stamp_of(found: os.stat_result) -> int:
    """Return what is other once a file was written to or another stands there, from 0 to 2^63 - 1.

    Copies keep the time of their original, so that images of one protocol may have one length and one time; the time
    of change of the inode (st_ctime) is nobody's to set. Neither alone: some file systems have only one of them.
    """
    return (found.st_mtime_ns + found.st_ctime_ns) % (1 << 63)  # times after 2262 do not fit the queue's column


@dataclass(frozen=True, slots=True)
class NewItem:
    """A file that is to go; `source` is `SPOOL` or the watched folder."""

    source: str
    file: File
    name: str
    priority: Priority
    destinations: Sequence[str]


@dataclass(frozen=True, slots=True)
class Item:
    """A file in the queue. `object_id` is "" until the first destination has it."""

    item_id: int
    source: str
    file: File
    name: str
    priority: Priority
    added_at_s: float
    object_id: str

    def location(self, spool: Path) -> Path:
        """Return where the file is; spooled objects are in the folder `spool`."""
        return spool / os.fsdecode(self.file.path)  # an absolute path stays as it is


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item at one destination: done (`object_id`), waiting (until `next_try_s`) or parked."""

    item_id: int
    state: Literal["done", "waiting", "parked"]
    object_id: str = ""
    next_try_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is still to go to one destination."""

    destination: str
    objects: int
    bytes: int
    stat_objects: int
    parked: int
    oldest_at_s: float | None
