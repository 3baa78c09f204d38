"""A file system in memory that knows what a power cut would leave.

Of a file there is what processes see (`data`), what is on the disk (`durable`) and the writes that are on neither
side yet (`pending`). Of the names: each folder's `entries` and `durable`, and the changes between them in one list.
Weaker than any real one on purpose: unflushed writes survive in any subset and are torn at 512 B or 4 KiB; unflushed
creations, renames and removals survive in any subset, a rename perhaps as both names, never as none. A failed flush
of data loses some of it and calls the pages clean, so that the next flush succeeds (Linux); a failed flush of names
leaves them undone, and may stop the file system (ext4, XFS: errors in the journal). Errors of writeback are reported
once to each descriptor that was open, by fdatasync and by syncfs, and to the next one opened while nobody has asked
(errseq_t). Refuses to do: system calls, paths, drawing when what happens.
"""

import copy
import random
from collections.abc import Iterator
from typing import Any, Self

ROOM_BYTES = 1 << 30
Names = list[tuple["Folder", str, "File | Folder | None"]]  # one change, in one piece


class Errors:
    """A counter of failed writebacks, and whether anyone was told of the last (errseq_t)."""

    def __init__(self) -> None:
        self.count, self.told = 0, True

    def add(self) -> None:
        self.count, self.told = self.count + 1, False

    def sample(self) -> int:
        """Return what a descriptor that is opened now compares with."""
        return self.count if self.told else self.count - 1

    def tell(self) -> int:
        self.told = True
        return self.count


class File:
    def __init__(self, now_s: float) -> None:
        self.data, self.durable = bytearray(), bytearray()
        self.pending: list[tuple[int, bytes | None]] = []  # (offset, bytes), or (length, None): cut to it
        self.errors = Errors()
        self.mtime_s = now_s
        self.links = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A quick one: what is pending never changes."""
        memo[id(self)] = twin = copy.copy(self)
        twin.data, twin.durable, twin.pending = self.data[:], self.durable[:], self.pending[:]
        twin.errors = copy.copy(self.errors)
        return twin

    def write(self, offset: int, octets: bytes) -> None:
        _put(self.data, offset, octets)
        self.pending.append((offset, octets))

    def truncate(self, length: int) -> None:
        _cut(self.data, length)
        self.pending.append((length, None))

    def flush(self) -> None:
        for offset, octets in self.pending:
            _apply(self.durable, offset, octets)
        self.pending.clear()

    def keep_some(self, rng: random.Random) -> None:
        """Let any part of the unflushed writes reach the disk, and forget the others."""
        keep, unit = rng.choice((0.0, 1.0, rng.random())), rng.choice((512, 4096))
        lost = False
        for offset, octets in self.pending:
            for at, piece in _torn(offset, octets, unit) if octets is not None else [(offset, None)]:
                if rng.random() < keep:
                    _apply(self.durable, at, piece)
                else:
                    lost = True
        if lost and rng.random() < 0.3 and len(self.durable) < len(self.data):  # the length went ahead of the bytes
            _put(self.durable, len(self.data) - 1, b"\0")
        self.pending.clear()

    def lose_some(self, rng: random.Random) -> None:
        """Fail to write back: what did not reach the disk is called clean all the same."""
        self.keep_some(rng)
        self.errors.add()

    def evict(self) -> None:
        """Forget the clean pages; who reads again gets what the disk has."""
        if not self.pending:
            length = len(self.data)
            self.data = bytearray(self.durable[:length]).ljust(length, b"\0")

    def restart(self, rng: random.Random) -> None:
        self.keep_some(rng)
        self.data = bytearray(self.durable)
        self.errors = Errors()


class Folder:
    def __init__(self) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}


class FileSystem:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.root = Folder()
        self.errors = Errors()
        self.read_only = False
        self.room_bytes = ROOM_BYTES
        self.used_bytes = 0
        self._names: list[Names] = []

    def twin(self, rng: random.Random) -> "FileSystem":
        """Return a copy that shares nothing, and draws from `rng`."""
        return copy.deepcopy(self, {id(self._rng): rng})

    def change(self, names: Names) -> None:
        """Change names at once, for processes."""
        for folder, name, node in names:
            if isinstance(old := folder.entries.pop(name, None), File):
                old.links -= 1
                self.used_bytes -= len(old.data) if old.links == 0 else 0
            if node is not None:
                folder.entries[name] = node
            if isinstance(node, File):
                node.links += 1
                self.used_bytes += len(node.data) if node.links == 1 else 0
        self._names.append(names)

    def flush_folder(self, folder: Folder) -> None:
        waiting, self._names = self._names, []
        for names in waiting:
            if any(each is folder for each, _, _ in names):
                _settle(names)
                self._overtake(names)
            else:
                self._names.append(names)

    def _overtake(self, done: Names) -> None:
        """An older change of the same name, still waiting by its other half, must not come after."""
        keys = {(id(folder), name) for folder, name, _ in done}
        self._names = [[each for each in names if (id(each[0]), each[1]) not in keys] for names in self._names]

    def flush_everything(self) -> None:
        for file in self.dirty_files():
            file.flush()
        self._settle_all()

    def fail_to_flush_everything(self) -> None:
        for file in self.dirty_files():
            if self._rng.random() < 0.7:
                file.lose_some(self._rng)
            else:
                file.flush()
        self.errors.add()
        if self._rng.random() < 0.5:
            self._settle_all()

    def write_back(self, file: File) -> None:
        """What the kernel does by itself, and fails to do; it is told at the next flush."""
        file.lose_some(self._rng)
        self.errors.add()

    def files(self) -> Iterator[File]:
        return (node for _, node in walk(self.root))

    def dirty_files(self) -> list[File]:
        return [file for file in self.files() if file.pending]

    def has_untold_errors(self) -> bool:
        return not self.errors.told or any(not file.errors.told for file in self.files())

    def cut_power(self) -> None:
        """Lose what was not flushed, or a part of it; processes see what is left."""
        keep = self._rng.choice((0.0, 1.0, self._rng.random()))
        for names in self._names:
            if self._rng.random() < keep:
                _settle(names[:1] if self._rng.random() < 0.1 else names)
        self._names.clear()
        _restart(self.root, self._rng, set())
        self._count()
        self.errors, self.read_only = Errors(), False

    def _settle_all(self) -> None:
        for names in self._names:
            _settle(names)
        self._names.clear()

    def _count(self) -> None:
        links: dict[int, int] = {}
        self.used_bytes = 0
        for file in self.files():
            links[id(file)] = file.links = links.get(id(file), 0) + 1
            self.used_bytes += len(file.data) if file.links == 1 else 0


def walk(folder: Folder, path: str = "") -> Iterator[tuple[str, File]]:
    """Yield each file that processes see, with its path."""
    for name, node in sorted(folder.entries.items()):
        if isinstance(node, Folder):
            yield from walk(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", node


def _settle(names: Names) -> None:
    for folder, name, node in names:
        if node is None:
            folder.durable.pop(name, None)
        else:
            folder.durable[name] = node


def _restart(folder: Folder, rng: random.Random, seen: set[int]) -> None:
    folder.entries = dict(folder.durable)
    for node in folder.entries.values():
        if isinstance(node, Folder):
            _restart(node, rng, seen)
        elif id(node) not in seen:  # it may have two names
            seen.add(id(node))
            node.restart(rng)


def _torn(offset: int, octets: bytes, unit: int) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(octets):
        end = start + unit - (offset + start) % unit
        yield offset + start, octets[start:end]
        start = end


def _apply(content: bytearray, offset: int, octets: bytes | None) -> None:
    if octets is None:
        _cut(content, offset)
    else:
        _put(content, offset, octets)


def _put(content: bytearray, offset: int, octets: bytes) -> None:
    if octets and offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(octets)] = octets


def _cut(content: bytearray, length: int) -> None:
    if length > len(content):
        content.extend(bytes(length - len(content)))
    del content[length:]
