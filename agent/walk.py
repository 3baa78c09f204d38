"""Finds regular files below a folder, and decides when a file has stopped changing.

Links are not followed, so there are no loops; FIFOs, sockets and devices are named and never opened; what vanishes
meanwhile is passed over. `settle` is pure. Refuses to do: reading files, remembering over a restart.
"""

import fnmatch
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.items import File, stamp_of

Trouble = Callable[[bytes, str], None]


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that was seen, and since when it looks as it does (seconds of a monotonic clock)."""

    file: File
    since_s: float


def settle(
    pending: Mapping[bytes, Pending], found: Iterable[File], now_s: float, settle_s: float
) -> tuple[list[File], dict[bytes, Pending]]:
    """Return the files that have looked the same for `settle_s`, and what is still to be watched.

    A file that is not among `found` is forgotten; one that changed begins anew.
    """
    settled, still = [], dict[bytes, Pending]()
    for file in found:
        known = pending.get(file.path)
        since_s = known.since_s if known is not None and known.file == file else now_s
        if now_s - since_s >= settle_s:
            settled.append(file)
        else:
            still[file.path] = Pending(file, since_s)
    return settled, still


def walk(folder: bytes, ignore: Sequence[str], trouble: Trouble) -> Iterator[File]:
    """Yield the regular files below `folder`; `trouble` is told of what cannot be taken, and why.

    `ignore` are shell patterns for the names of files and folders that are passed over in silence.
    """
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop(), trouble):
            if any(fnmatch.fnmatchcase(os.fsdecode(entry.name), pattern) for pattern in ignore):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                trouble(entry.path, str(error.strerror))
                continue
            if stat.S_ISDIR(found.st_mode):
                waiting.append(entry.path)
            elif stat.S_ISREG(found.st_mode):
                yield File(entry.path, found.st_size, stamp_of(found))
            else:
                trouble(entry.path, "a link is not followed" if stat.S_ISLNK(found.st_mode) else "not a regular file")


def _entries(folder: bytes, trouble: Trouble) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        trouble(folder, str(error.strerror))
        return []


def readable(files: Iterable[File], trouble: Trouble) -> list[File]:
    """Return those files that can be opened now; never waits, whatever stands there meanwhile."""
    found = []
    for file in files:
        try:
            os.close(os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
            found.append(file)
        except FileNotFoundError:
            continue
        except OSError as error:
            trouble(file.path, str(error.strerror))
    return found
