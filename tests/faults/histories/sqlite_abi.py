"""SQLite's C interface for file systems (`sqlite3_vfs`, `sqlite3_io_methods`), as ctypes has it.

The library is the one that Python's `sqlite3` itself runs on, so that a file system registered here is under the
production code with nothing changed there. Source: sqlite3.h, "OS Interface Object". Refuses to do: files.
"""

import _sqlite3
import ctypes
import sqlite3
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_double, c_int, c_int64, c_void_p
from typing import Any

OK, BUSY, FULL, CANTOPEN, NOTFOUND = 0, 5, 13, 14, 12
IOERR = 10
IOERR_READ, IOERR_SHORT_READ, IOERR_WRITE, IOERR_FSYNC, IOERR_DIR_FSYNC, IOERR_TRUNCATE, IOERR_FSTAT, IOERR_DELETE = (
    IOERR | number << 8 for number in (1, 2, 3, 4, 5, 6, 7, 10)
)
IOERR_DELETE_NOENT = IOERR | 23 << 8
OPEN_READONLY, OPEN_CREATE, OPEN_DELETE_ON_CLOSE, OPEN_EXCLUSIVE = 0x1, 0x4, 0x8, 0x10
OPEN_JOURNALS = 0x800 | 0x4000 | 0x80000  # main, super-journal, WAL: their folder is flushed with their first flush
ACCESS_EXISTS = 0
SHARED, RESERVED, PENDING, EXCLUSIVE = 1, 2, 3, 4
SHM_UNLOCK, SHM_SHARED = 1, 4
SHM_LOCKS = 8
POWERSAFE_OVERWRITE = 0x1000

_FILE = [
    ("xClose", CFUNCTYPE(c_int, c_void_p)),
    ("xRead", CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)),
    ("xWrite", CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)),
    ("xTruncate", CFUNCTYPE(c_int, c_void_p, c_int64)),
    ("xSync", CFUNCTYPE(c_int, c_void_p, c_int)),
    ("xFileSize", CFUNCTYPE(c_int, c_void_p, POINTER(c_int64))),
    ("xLock", CFUNCTYPE(c_int, c_void_p, c_int)),
    ("xUnlock", CFUNCTYPE(c_int, c_void_p, c_int)),
    ("xCheckReservedLock", CFUNCTYPE(c_int, c_void_p, POINTER(c_int))),
    ("xFileControl", CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)),
    ("xSectorSize", CFUNCTYPE(c_int, c_void_p)),
    ("xDeviceCharacteristics", CFUNCTYPE(c_int, c_void_p)),
    ("xShmMap", CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, POINTER(c_void_p))),
    ("xShmLock", CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int)),
    ("xShmBarrier", CFUNCTYPE(None, c_void_p)),
    ("xShmUnmap", CFUNCTYPE(c_int, c_void_p, c_int)),
]
_DISK = [
    ("xOpen", CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p, c_int, POINTER(c_int))),
    ("xDelete", CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)),
    ("xAccess", CFUNCTYPE(c_int, c_void_p, c_char_p, c_int, POINTER(c_int))),
    ("xFullPathname", CFUNCTYPE(c_int, c_void_p, c_char_p, c_int, c_void_p)),
    ("xDlOpen", c_void_p),
    ("xDlError", c_void_p),
    ("xDlSym", c_void_p),
    ("xDlClose", c_void_p),
    ("xRandomness", CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)),
    ("xSleep", CFUNCTYPE(c_int, c_void_p, c_int)),
    ("xCurrentTime", CFUNCTYPE(c_int, c_void_p, POINTER(c_double))),
    ("xGetLastError", CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)),
]


class IoMethods(ctypes.Structure):
    _fields_ = [("iVersion", c_int), *_FILE]


class OsFile(ctypes.Structure):
    """What SQLite keeps for us of an open file: the methods, then our own number for it."""

    _fields_ = [("pMethods", POINTER(IoMethods)), ("number", c_int64)]


class Vfs(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        *_DISK,
    ]


def library() -> ctypes.CDLL:
    """Return the SQLite that the module `sqlite3` runs on.

    Raises:
        OSError: it is built into Python in a way that hides it.
    """
    found = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    try:
        found.sqlite3_libversion.restype = c_char_p
        found.sqlite3_vfs_find.restype = c_void_p
        found.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
        found.sqlite3_vfs_unregister.argtypes = [c_void_p]
        found.sqlite3_randomness.argtypes = [c_int, c_void_p]
    except AttributeError as error:
        raise OSError("the SQLite of this Python cannot be reached") from error
    if found.sqlite3_libversion().decode() != sqlite3.sqlite_version:
        raise OSError("the SQLite that is reached is not the one of this Python")
    return found


def filled(structure: Any, methods: dict[str, Any], **values: Any) -> Any:
    """Return a structure with these methods; a callback of another name is an error."""
    types = dict(structure._fields_)
    return structure(**values, **{name: types[name](method) for name, method in methods.items()})
