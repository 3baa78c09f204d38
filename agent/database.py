"""The queue's SQLite file: opened, checked, made to the schema in `queue.sql`, set aside when it is damaged.

One connection, which writes, reads and checkpoints; WAL mode with synchronous=FULL, so what is committed is durable; no
memory map (a failing disk must be an error, not a signal). Refuses to do: queries.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from transfer import disk
from transfer.errors import FullError, SettingsError, StorageError
from transfer.log import get_logger

log = get_logger()
VERSION: Final = 1
SCHEMA: Final = resources.files("agent").joinpath("queue.sql").read_text(encoding="utf-8")
CHECKPOINT_PAGES: Final = 1000  # 4 MB of write-ahead log
LOG_KEPT_BYTES: Final = 16 << 20  # of it after a checkpoint


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        raise (FullError if full else StorageError)(f"queue: {error}") from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit on leaving well, roll back on leaving badly."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _pragmas():
            connection.execute(f"PRAGMA {pragma}")
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)  # noqa: TRY301 - damage, said in SQLite's own way
        _settle_log(connection)
        _migrate(connection, path)
        _require_log(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _pragmas() -> list[str]:
    return [
        "mmap_size = 0",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "cache_size = -8192",
        f"journal_size_limit = {LOG_KEPT_BYTES}",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    ]


def _require_log(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that commits go to the log, and that its name is durable.

    SQLite says neither when an error, or a journal that a crash left, keeps it from its log (without, a power cut may
    take the last commit), nor when the flush of the log's name fails.
    """
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StorageError(f"{path}: the journal's mode is {mode}, not wal")
    disk.flush_folder(str(path.parent))


def _settle_log(connection: sqlite3.Connection) -> None:
    """Write what the log holds into the database.

    What a failed flush was of may be in the kernel's memory alone, which SQLite reads, and commits behind it would be
    lost with it. Where there is no room for that the queue is opened all the same: what it lets go of makes some.
    """
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        log.warning("queue_log_kept", error=str(error))


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise SettingsError(f"{path}: made by a newer version of this program; use that version")
    if version == 0:
        connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, made if need be; a damaged one is set aside and begun anew. Blocks.

    Raises:
        StorageError, FullError: the disk failed or is full.
        SettingsError: the file is of a newer version.
    """
    with database_errors():
        try:
            return _connect(path)
        except sqlite3.OperationalError:
            raise  # the disk or its permissions, not the contents
        except sqlite3.DatabaseError as error:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            _set_aside(path, aside)
            log.critical("queue_damaged", error=str(error), set_aside=str(aside))
            return _connect(path)


def _set_aside(path: Path, aside: Path) -> None:
    """Move the file, and then its log, which may hold all that is worth saving; a new queue begins without either."""
    disk.rename(str(path), str(aside))
    if disk.exists(f"{path}-wal"):
        disk.rename(f"{path}-wal", f"{aside}-wal")
    disk.unlink(f"{path}-shm")
    disk.flush_folder(str(path.parent))
