"""The simulated disk under SQLite: its own C code, its files on a `Machine` instead of the system's.

As SQLite's os_unix.c makes system calls: writes that come short go on, ENOSPC is a full disk, a flush is one fdatasync,
the folder of a new journal or WAL is flushed with its first flush and a failure of that is not told, a file without
bytes does not exist. Shared memory and locks end with the process (`sqlite_locks`). While it is in place
(`open_sqlite`), every connection of this Python opens here. Refuses to do: memory maps.
"""

import ctypes
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.faults.histories import sqlite_abi as abi
from tests.faults.histories.machine import Machine
from tests.faults.histories.sqlite_locks import Locks

NAME = b"fascicle-histories"
SECTOR_BYTES = 4096
TEMPORARY = "/disk/temporary"


_kept: list["SqliteOnMachine"] = []  # a connection that a failing test leaves open calls us when it is collected


class _Opened:
    """An open file of SQLite's."""

    def __init__(self, path: str, descriptor: int, locks: Locks, *, new_journal: bool, delete: bool) -> None:
        self.path, self.descriptor, self.locks = path, descriptor, locks
        self.flush_folder, self.delete = new_journal, delete


def _code(failure: int) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Answer with SQLite's code for an error; when everything has stopped, too."""

    def wrapped(call: Callable[..., int | None]) -> Callable[..., int]:
        def answering(*arguments: Any) -> int:
            try:
                return call(*arguments) or abi.OK
            except OSError as error:
                return abi.FULL if error.errno == errno.ENOSPC and failure == abi.IOERR_WRITE else failure
            except BaseException:
                return failure

        return answering

    return wrapped


class SqliteOnMachine:
    """The calls; `machine` may be changed for another while nothing is open."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._library = abi.library()
        self._opened: dict[int, _Opened] = {}
        self._locks: dict[str, Locks] = {}
        self._numbers = itertools.count(1)
        names = ["Close", "Read", "Write", "Truncate", "Sync", "FileSize", "Lock", "Unlock", "CheckReservedLock"]
        names += ["FileControl", "SectorSize", "DeviceCharacteristics", "ShmMap", "ShmLock", "ShmBarrier", "ShmUnmap"]
        self._methods = abi.filled(
            abi.IoMethods, {f"x{name}": getattr(self, f"_x{name}") for name in names}, iVersion=2
        )
        calls = ["Open", "Delete", "Access", "FullPathname", "Randomness", "Sleep", "CurrentTime", "GetLastError"]
        self._vfs = abi.filled(
            abi.Vfs,
            {f"x{name}": getattr(self, f"_x{name}") for name in calls},
            iVersion=1,
            szOsFile=ctypes.sizeof(abi.OsFile),
            mxPathname=512,
            zName=NAME,
        )

    def register(self) -> None:
        _kept.append(self)
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        self._library.sqlite3_randomness(0, None)  # so that the next numbers come from us

    def unregister(self) -> None:
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
        self._library.sqlite3_randomness(0, None)
        self._library.sqlite3_vfs_register(self._library.sqlite3_vfs_find(b"unix"), 1)

    def end_process(self) -> None:
        """Forget what was open, as when its process is gone."""
        self._opened.clear()
        self._locks.clear()

    def _of(self, file: int) -> _Opened:
        return self._opened[abi.OsFile.from_address(file).number]

    def _flush_folder(self, path: str) -> None:
        descriptor = self.machine.open(path.rpartition("/")[0], os.O_RDONLY)
        try:
            self.machine.fsync(descriptor)
        finally:
            self.machine.close(descriptor)

    # Names.

    @_code(abi.CANTOPEN)
    def _xOpen(self, _: int, name: bytes | None, file: int, flags: int, out: Any) -> None:
        handle = abi.OsFile.from_address(file)
        handle.pMethods = None  # SQLite closes only what has methods
        number = next(self._numbers)
        path = name.decode() if name else f"{TEMPORARY}/{number}"
        found = self.machine._found(path)
        if not name and self.machine._found(TEMPORARY) is None:
            self.machine.makedirs(TEMPORARY)
        wanted = os.O_RDONLY if flags & abi.OPEN_READONLY else os.O_RDWR
        wanted |= os.O_CREAT if flags & abi.OPEN_CREATE else 0
        wanted |= os.O_EXCL if flags & abi.OPEN_EXCLUSIVE else 0
        opened = _Opened(
            path,
            self.machine.open(path, wanted),
            self._locks.setdefault(path, Locks()),
            new_journal=found is None and bool(flags & abi.OPEN_JOURNALS),
            delete=not name or bool(flags & abi.OPEN_DELETE_ON_CLOSE),
        )
        self._opened[number] = opened
        handle.number, handle.pMethods = number, ctypes.pointer(self._methods)
        if out:
            out[0] = flags

    @_code(abi.IOERR_DELETE)
    def _xDelete(self, _: int, name: bytes, sync_folder: int) -> int:
        path = name.decode()
        try:
            self.machine.unlink(path)
        except FileNotFoundError:
            return abi.IOERR_DELETE_NOENT
        if sync_folder:
            try:
                self._flush_folder(path)
            except OSError:
                return abi.IOERR_DIR_FSYNC
        return abi.OK

    @_code(abi.IOERR)
    def _xAccess(self, _: int, name: bytes, flags: int, out: Any) -> None:
        out[0] = 0
        with suppress(FileNotFoundError, NotADirectoryError):  # not there: 0
            out[0] = int(flags != abi.ACCESS_EXISTS or self.machine.lstat(name.decode()).st_size > 0)

    def _xFullPathname(self, _: int, name: bytes, length: int, out: int) -> int:
        ctypes.memmove(out, name + b"\0", min(length, len(name) + 1))
        return abi.OK

    # Bytes.

    @_code(abi.IOERR)
    def _xClose(self, file: int) -> None:
        number = abi.OsFile.from_address(file).number
        opened = self._opened.pop(number, None)
        if opened is None:
            return  # of a process that has ended
        opened.locks.forget(number)
        self.machine.close(opened.descriptor)
        if opened.delete:
            self.machine.unlink(opened.path)

    @_code(abi.IOERR_READ)
    def _xRead(self, file: int, target: int, length: int, offset: int) -> int:
        opened, filled, data = self._of(file), 0, bytearray(length)
        while filled < length:
            view = memoryview(data)[filled:]
            if (count := self.machine.preadv(opened.descriptor, [view], offset + filled)) == 0:
                break
            filled += count
        ctypes.memmove(target, bytes(data), length)  # zeros behind the end, as SQLite wants it
        return abi.OK if filled == length else abi.IOERR_SHORT_READ

    @_code(abi.IOERR_WRITE)
    def _xWrite(self, file: int, source: int, length: int, offset: int) -> None:
        data, written = ctypes.string_at(source, length), 0
        while written < length:
            view = memoryview(data)[written:]
            written += self.machine.pwritev(self._of(file).descriptor, [view], offset + written)

    @_code(abi.IOERR_TRUNCATE)
    def _xTruncate(self, file: int, length: int) -> None:
        self.machine.ftruncate(self._of(file).descriptor, length)

    @_code(abi.IOERR_FSYNC)
    def _xSync(self, file: int, _: int) -> None:
        opened = self._of(file)
        self.machine.fdatasync(opened.descriptor)
        if opened.flush_folder:
            with suppress(OSError):  # as there: a failure of this flush is not told
                self._flush_folder(opened.path)
            opened.flush_folder = False

    @_code(abi.IOERR_FSTAT)
    def _xFileSize(self, file: int, out: Any) -> None:
        out[0] = self.machine.fstat(self._of(file).descriptor).st_size

    def _xFileControl(self, *_: int) -> int:
        return abi.NOTFOUND

    def _xSectorSize(self, _: int) -> int:
        return SECTOR_BYTES

    def _xDeviceCharacteristics(self, _: int) -> int:
        return abi.POWERSAFE_OVERWRITE

    # Locks and shared memory.

    @_code(abi.IOERR)
    def _xLock(self, file: int, level: int) -> int:
        return self._of(file).locks.lock(abi.OsFile.from_address(file).number, level)

    @_code(abi.IOERR)
    def _xUnlock(self, file: int, level: int) -> None:
        self._of(file).locks.unlock(abi.OsFile.from_address(file).number, level)

    @_code(abi.IOERR)
    def _xCheckReservedLock(self, file: int, out: Any) -> None:
        out[0] = int(self._of(file).locks.is_reserved())

    @_code(abi.IOERR)
    def _xShmMap(self, file: int, region: int, length: int, extend: int, out: Any) -> None:
        number = abi.OsFile.from_address(file).number
        out[0] = self._of(file).locks.map(number, region, length, bool(extend)) or None

    @_code(abi.IOERR)
    def _xShmLock(self, file: int, first: int, count: int, flags: int) -> int:
        return self._of(file).locks.lock_slots(abi.OsFile.from_address(file).number, first, count, flags)

    def _xShmBarrier(self, _: int) -> None:
        """Between threads that run one at a time there is nothing to order."""

    @_code(abi.IOERR)
    def _xShmUnmap(self, file: int, _: int) -> None:
        self._of(file).locks.unmap(abi.OsFile.from_address(file).number)

    # Clock and chance.

    def _xRandomness(self, _: int, length: int, out: int) -> int:
        ctypes.memmove(out, self.machine._rng.randbytes(length), length)
        return length

    def _xSleep(self, _: int, microseconds: int) -> int:
        self.machine.now_s += microseconds / 1e6
        return microseconds

    def _xCurrentTime(self, _: int, out: Any) -> int:
        out[0] = self.machine.now_s / 86_400 + 2_440_587.5  # days, from noon in 4714 BC on
        return abi.OK

    def _xGetLastError(self, *_: int) -> int:
        return abi.OK


@contextmanager
def open_sqlite(machine: Machine) -> Iterator[SqliteOnMachine]:
    """Let every SQLite database be opened on `machine` until the context is left."""
    under = SqliteOnMachine(machine)
    under.register()
    try:
        yield under
    finally:
        under.unregister()
