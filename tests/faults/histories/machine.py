"""The system calls of `transfer.disk`, on a simulated disk.

`Machine` is what `transfer.disk` gets for its module `os`; `control` stands for `fcntl`, `library` for libc. A call
that is not here is an error of the test, so no new call of the production code goes by unsimulated. Refuses to do: what
survives (`filesystem`), what fails when (`running`).
"""

import ctypes
import errno
import fcntl
import os
import random
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

from tests.faults.histories.filesystem import Errors, File, Folder
from tests.faults.histories.running import Running

FIRST_DESCRIPTOR = 1 << 20  # never a real one
NAMES_OF_CONTROL = ("F_GETFL", "F_SETFL", "LOCK_EX", "LOCK_NB")


class Opened:
    """What a descriptor refers to."""

    def __init__(self, node: File | Folder, flags: int, disk_errors: Errors) -> None:
        self.node, self.flags = node, flags
        self.told = node.errors.sample() if isinstance(node, File) else 0
        self.told_of_disk = disk_errors.sample()


class Entry:
    """As os.DirEntry."""

    def __init__(self, folder: str, name: str, node: File | Folder) -> None:
        self.name, self.path, self._node = name, f"{folder}/{name}", node

    def stat(self, *, follow_symlinks: bool = True) -> SimpleNamespace:
        return _status(self._node)


class Machine(Running):
    """Also the module `os`, as far as `transfer.disk` and `transfer.durable` know it."""

    O_RDWR, O_RDONLY, O_CREAT, O_EXCL = os.O_RDWR, os.O_RDONLY, os.O_CREAT, os.O_EXCL
    O_CLOEXEC, O_NOFOLLOW, O_DIRECTORY, O_DIRECT = os.O_CLOEXEC, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_DIRECT
    POSIX_FADV_DONTNEED = os.POSIX_FADV_DONTNEED
    path, strerror, DirEntry = os.path, staticmethod(os.strerror), os.DirEntry

    def __init__(self, rng: random.Random, give_way: Callable[[], None], trace: Callable[[str], None] | None) -> None:
        super().__init__(rng, give_way, trace)
        self._opened: dict[int, Opened] = {}
        self._next = FIRST_DESCRIPTOR
        self.control = SimpleNamespace(
            fcntl=self.fcntl, flock=lambda *_: None, **{name: getattr(fcntl, name) for name in NAMES_OF_CONTROL}
        )
        self.library = SimpleNamespace(syncfs=self.syncfs, sync_file_range=lambda *_: 0)

    def start_again(self, *, power_cut: bool) -> None:
        """Go on with no process; none has anything open."""
        super().start_again(power_cut=power_cut)
        self._opened.clear()

    # Names.

    def _find(self, path: str) -> File | Folder:
        node: File | Folder = self.disk.root
        for part in path.split("/"):
            if part:
                if not isinstance(node, Folder) or part not in node.entries:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                node = node.entries[part]
        return node

    def _folder(self, path: str) -> Folder:
        node = self._find(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rpartition("/")
        return self._folder(folder), name

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        folder, name = self._place(path)
        node = folder.entries.get(name)
        if node is None and flags & os.O_CREAT:
            self._enter("create", path)
            node = File(self.now_s)
            self.disk.change([(folder, name, node)])
            return self._new_descriptor(node, flags)
        self._enter("open", path)
        node = folder.entries.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return self._new_descriptor(node, flags)

    def _new_descriptor(self, node: File | Folder, flags: int) -> int:
        self._next += 1
        self._opened[self._next] = Opened(node, flags, self.disk.errors)
        return self._next

    def close(self, descriptor: int) -> None:
        self._enter("close")
        del self._opened[descriptor]

    def rename(self, source: str, target: str) -> None:
        self._enter("rename", f"{source} {target}")
        (old, name), (new, wanted) = self._place(source), self._place(target)
        self.disk.change([(new, wanted, self._find(source)), (old, name, None)])

    def unlink(self, path: str) -> None:
        self._enter("unlink", path)
        folder, name = self._place(path)
        self._find(path)
        self.disk.change([(folder, name, None)])

    def makedirs(self, path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        if not path or isinstance(self._found(path), Folder):
            return
        self.makedirs(path.rpartition("/")[0])
        self._enter("mkdir", path)
        folder, name = self._place(path)
        if name not in folder.entries:
            self.disk.change([(folder, name, Folder())])

    def _found(self, path: str) -> File | Folder | None:
        try:
            return self._find(path)
        except FileNotFoundError:
            return None

    def lstat(self, path: str) -> SimpleNamespace:
        self._enter("lstat", path)
        return _status(self._find(path))

    def fstat(self, descriptor: int) -> SimpleNamespace:
        self._enter("fstat")
        return _status(self._opened[descriptor].node)

    @contextmanager
    def scandir(self, path: str) -> Iterator[Iterator[Entry]]:
        self._enter("scandir", path)
        yield iter([Entry(path, name, node) for name, node in sorted(self._folder(path).entries.items())])

    def statvfs(self, path: str) -> SimpleNamespace:
        self._enter("statvfs", path)
        return SimpleNamespace(f_bavail=max(0, self.disk.room_bytes - self.disk.used_bytes), f_frsize=1)

    # Bytes.

    def _file(self, descriptor: int) -> File:
        node = self._opened[descriptor].node
        assert isinstance(node, File)
        return node

    def pwritev(self, descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        octets = b"".join(buffers)
        self._enter("pwrite", f"{len(octets)} at {offset}")
        room = self.disk.room_bytes - self.disk.used_bytes
        if self.short_ratio and self._rng.random() < self.short_ratio:
            octets = octets[: self._rng.randint(1, len(octets))]
        file = self._file(descriptor)
        growth = max(0, offset + len(octets) - len(file.data))
        if growth > room:
            octets = octets[: len(octets) - growth + max(0, room)]
            if not octets:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before = len(file.data)
        file.write(offset, octets)
        file.mtime_s = self.now_s
        self.disk.used_bytes += len(file.data) - before if file.links else 0
        return len(octets)

    def pwrite(self, descriptor: int, view: memoryview, offset: int) -> int:
        if self._opened[descriptor].flags & os.O_DIRECT and (offset % 512 or view.nbytes % 512):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.pwritev(descriptor, [view], offset)

    def preadv(self, descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        (buffer,) = buffers
        self._enter("pread", f"{buffer.nbytes} at {offset}")
        octets = self._file(descriptor).data[offset : offset + buffer.nbytes]
        if octets and self.short_ratio and self._rng.random() < self.short_ratio:
            octets = octets[: self._rng.randint(1, len(octets))]
        buffer[: len(octets)] = octets
        return len(octets)

    def ftruncate(self, descriptor: int, length: int) -> None:
        self._enter("ftruncate", str(length))
        file = self._file(descriptor)
        self.disk.used_bytes += length - len(file.data) if file.links else 0
        file.truncate(length)

    def fcntl(self, descriptor: int, command: int, argument: int = 0) -> int:
        opened = self._opened[descriptor]
        if command == fcntl.F_SETFL:
            opened.flags = argument
        return opened.flags

    def posix_fadvise(self, descriptor: int, offset: int, length: int, advice: int) -> None:
        self._enter("fadvise")
        self._file(descriptor).evict()

    # Flushes.

    def fdatasync(self, descriptor: int) -> None:
        opened, file = self._opened[descriptor], self._file(descriptor)
        try:
            self._enter("fdatasync")
        except OSError:
            file.lose_some(self._rng)
            opened.told = file.errors.tell()
            raise
        file.flush()
        if file.errors.count > opened.told:
            opened.told = file.errors.tell()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fsync(self, descriptor: int) -> None:
        """Of a folder; nothing here calls it on a file."""
        folder = self._opened[descriptor].node
        assert isinstance(folder, Folder)
        try:
            self._enter("fsync")
        except OSError:
            self._break_down()
            raise
        self.disk.flush_folder(folder)

    def syncfs(self, descriptor: ctypes.c_int) -> int:
        opened = self._opened[descriptor.value]
        try:
            self._enter("syncfs")
        except OSError as error:
            self.disk.fail_to_flush_everything()
            opened.told_of_disk = self.disk.errors.tell()
            self._break_down()
            ctypes.set_errno(error.errno or errno.EIO)
            return -1
        if self.disk.read_only:  # Linux calls that a success
            return 0
        self.disk.flush_everything()
        if self.disk.errors.count > opened.told_of_disk:
            opened.told_of_disk = self.disk.errors.tell()
            ctypes.set_errno(errno.EIO)
            return -1
        return 0


def _status(node: File | Folder) -> SimpleNamespace:
    if isinstance(node, Folder):
        return SimpleNamespace(st_mode=stat.S_IFDIR | 0o750, st_size=4096, st_mtime=0.0, st_ino=id(node), st_dev=1)
    return SimpleNamespace(
        st_mode=stat.S_IFREG | 0o640, st_size=len(node.data), st_mtime=node.mtime_s, st_ino=id(node), st_dev=1
    )
