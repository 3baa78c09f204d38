"""The catalogue's database: one writer thread with one connection, and readers that can only read.

The one module that knows SQLite: WAL, synchronous=FULL, no memory map (a failing disk must be an error, not a
signal). Units of work (plain functions of a connection) queue for the writer, which runs those that wait together in
one transaction, each behind a savepoint: one flush serves many callers, and one that fails takes no other along. A
caller gets its answer after the commit, so what the gateway promises is durable. Refuses to do: queries.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Dialect, Engine, Table, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool
from sqlalchemy.sql.compiler import SQLCompiler

from gateway import schema
from transfer import disk
from transfer.durable import make_folder_durably
from transfer.errors import BusyError, FascicleError, FullError, SettingsError, StorageError
from transfer.log import get_logger
from transfer.tally import Tally

T = TypeVar("T")
Unit = Callable[[Connection], T]
GROUP_MAX: Final = 64  # units in one transaction
WAITING_MAX: Final = 1024  # units in the queue; beyond, callers are told to come back
OVERLOADED_S: Final = 2.0  # so many units are through in that time
READERS: Final = 4
LOCK_WAIT_S: Final = 10.0  # for a program that reads, such as a backup
PAGE_CACHE_KIB: Final = 32 * 1024
CHECKPOINT_PAGES: Final = 8000  # 32 MB of write-ahead log
LOG_KEPT_BYTES: Final = 64 << 20  # of it after a checkpoint
_INSERTS: Final[dict[str, Callable[[Table], Any]]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Database:
    """An open catalogue. `write` and `read` are for asyncio; units must not keep their connection."""

    def __init__(self, path: Path) -> None:
        """Open or create the catalogue.

        Raises:
            SettingsError: cannot be opened, is damaged, or was written by another version.
        """
        self._waiting: queue.Queue[tuple[Unit[Any], Future[Any]] | None] = queue.Queue(WAITING_MAX)
        self._writer, self._readers = _engine(path, read_only=False), _engine(path, read_only=True)
        try:
            make_folder_durably(path.parent)
            disk.close(disk.open_or_create(str(path)))  # SQLite's own way lets everybody read the names of patients
            _settle_log(self._writer)
            _create(self._writer, path)
            _require_log(self._writer, path)
        except (FascicleError, OSError, SQLAlchemyError, sqlite3.Error) as error:
            self._writer.dispose()
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"{path}: the catalogue cannot be opened: {error}") from error
        self._failures: defaultdict[str, Tally] = defaultdict(Tally)  # by code
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="catalogue-read")
        self._thread = threading.Thread(target=self._serve_writes, name="catalogue-write", daemon=True)
        self._thread.start()

    @property
    def waiting_count(self) -> int:
        """The number of units that wait for the writer."""
        return self._waiting.qsize()

    async def write(self, unit: Unit[T]) -> T:
        """Run `unit` in a durable transaction and return what it returned.

        Raises:
            BusyError: too many units wait.
            FullError: no room on the disk; nothing of the unit was kept.
            StorageError: the database failed; nothing of the unit was kept.
            Exception: whatever the unit raised; nothing of it was kept.
        """
        done: Future[T] = Future()
        try:
            self._waiting.put_nowait((unit, done))
        except queue.Full as error:
            raise BusyError("the catalogue is overloaded", retry_after_s=OVERLOADED_S) from error
        return await asyncio.wrap_future(done)

    async def read(self, unit: Unit[T]) -> T:
        """Run `unit` on a connection that sees one snapshot and cannot write.

        Raises:
            StorageError: the database failed.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, unit)

    def close(self) -> None:
        """Finish what waits, then close."""
        self._waiting.put(None)
        self._thread.join()
        self._pool.shutdown()
        self._readers.dispose()
        self._writer.dispose()

    def _read(self, unit: Unit[T]) -> T:
        try:
            with self._readers.begin() as connection:
                return unit(connection)
        except SQLAlchemyError as error:
            raise StorageError("the catalogue cannot be read") from error

    def _serve_writes(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, stop = self._gather(first)
            self._run_group(group)
            if stop:
                return

    def _gather(self, first: tuple[Unit[Any], Future[Any]]) -> tuple[list[tuple[Unit[Any], Future[Any]]], bool]:
        group = [first]
        while len(group) < GROUP_MAX:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return group, True
            group.append(following)
        return group, False

    def _run_group(self, group: list[tuple[Unit[Any], Future[Any]]]) -> None:
        """Answer only after the commit; when that fails, everyone in the group hears it."""
        answers: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self._writer.begin() as connection:
                answers = [(done, *_attempt(connection, unit)) for unit, done in group]
        except Exception as error:
            failure = _failure_of(error)
            if count := self._failures[failure.code].note(time.monotonic()):
                kind = type(error).__name__
                get_logger().error("catalogue_write_failed", code=failure.code, error=kind, count=count)
            answers = [(done, None, failure) for _, done in group]
        for done, value, problem in answers:
            if not done.set_running_or_notify_cancel():
                continue  # the caller has gone; what was committed stays, and every step may be repeated
            if problem is None:
                done.set_result(value)
            else:
                done.set_exception(problem)


def _failure_of(error: Exception) -> FascicleError:
    """Return what callers hear: SQLite takes back what found no room, and goes on when there is some."""
    full = getattr(getattr(error, "orig", error), "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    kind = FullError if full else StorageError
    failure = kind(
        f"the catalogue {'has no room on its disk' if full else 'cannot be written'}; nothing of this request was kept"
    )
    failure.__cause__ = error
    return failure


def _attempt(connection: Connection, unit: Unit[T]) -> tuple[T | None, BaseException | None]:
    """Run one unit behind a savepoint; a database error is re-raised because the whole transaction is in doubt."""
    savepoint = connection.begin_nested()
    try:
        value = unit(connection)
    except SQLAlchemyError:
        raise
    except Exception as error:  # the unit's own refusal: handed to its caller as it is
        savepoint.rollback()
        return None, error
    savepoint.commit()
    return value, None


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose keys are not there yet; the others stay as they are. All rows have the same columns."""
    if rows:
        _insert_many(connection, _compiled_insert(connection.dialect, table, tuple(rows[0]), update=False), rows)


def insert_or_update(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows; those whose keys are there already replace what was. All rows have the same columns."""
    if rows:
        _insert_many(connection, _compiled_insert(connection.dialect, table, tuple(rows[0]), update=True), rows)


@lru_cache(maxsize=64)
def _compiled_insert(dialect: Dialect, table: Table, columns: tuple[str, ...], *, update: bool) -> SQLCompiler:
    statement = _INSERTS[dialect.name](table)
    if update:
        keys = [column.name for column in table.primary_key]
        values = {name: statement.excluded[name] for name in columns if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=values)
    else:
        statement = statement.on_conflict_do_nothing()
    return cast(SQLCompiler, statement.compile(dialect=dialect, column_keys=columns))


def _insert_many(connection: Connection, compiled: SQLCompiler, rows: Sequence[Mapping[str, Any]]) -> None:
    """Hand the rows to the driver as they are; SQLAlchemy's own way cost as much time as the inserts (10 000 rows)."""
    order = compiled.positiontup
    values: Any = rows if order is None else [tuple(row[name] for name in order) for row in rows]
    connection.exec_driver_sql(compiled.string, values)


def insert_new_from(connection: Connection, table: Table, columns: list[str], query: Any) -> None:
    """Insert the rows that `query` (which must have a WHERE clause) selects, where their keys are not there yet."""
    statement = _INSERTS[connection.dialect.name](table).from_select(columns, query)
    connection.execute(statement.on_conflict_do_nothing())


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a connection with its settings; one may write and checkpoint, the others can do neither.

    Raises:
        sqlite3.Error: there is no catalogue and it may not be made, or it cannot be read.
    """
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=LOCK_WAIT_S,
    )
    try:
        for pragma in _pragmas(read_only=read_only):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _engine(path: Path, *, read_only: bool) -> Engine:
    creator = partial(connect, path, read_only=read_only)
    if read_only:
        engine = create_engine("sqlite://", creator=creator, poolclass=QueuePool, pool_size=READERS, max_overflow=0)
    else:
        engine = create_engine("sqlite://", creator=creator, poolclass=StaticPool)
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
    # The driver's own transaction handling is off (isolation_level None), so that savepoints work.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _pragmas(*, read_only: bool) -> list[str]:
    shared = ["mmap_size = 0", f"cache_size = -{PAGE_CACHE_KIB}", "foreign_keys = ON", "trusted_schema = OFF"]
    if read_only:
        return [*shared, "query_only = ON"]
    return [
        *shared,
        "journal_mode = WAL",
        "synchronous = FULL",
        f"journal_size_limit = {LOG_KEPT_BYTES}",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    ]


def _require_log(engine: Engine, path: Path) -> None:
    """Make sure that commits go to the log, and that its name is durable.

    SQLite says neither when an error, or a journal that a crash left, keeps it from its log (without, a power cut may
    take the last commit), nor when the flush of the log's name fails.
    """
    with closing(engine.raw_connection()) as connection:
        mode = connection.cursor().execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise SettingsError(f"{path}: the catalogue cannot be opened: its journal's mode is {mode}, not wal")
    disk.flush_folder(str(path.parent))


def _settle_log(engine: Engine) -> None:
    """Write what the log holds into the catalogue.

    What a failed flush was of may be in the kernel's memory alone, which SQLite reads, and commits behind it would be
    lost with it. Where there is no room for that the catalogue is opened all the same: what is deleted makes some.
    """
    try:
        with closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        get_logger().warning("catalogue_log_kept", error=str(error))


def _create(engine: Engine, path: Path) -> None:
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        insert_new(connection, schema.meta, [{"key": "version", "value": str(schema.VERSION)}])
        insert_new(connection, schema.totals, [{"totals_key": 1, "objects": 0, "bytes": 0, "stored_bytes": 0}])
        found = connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == "version")).scalar_one()
    if found != str(schema.VERSION):
        raise SettingsError(f"{path}: the catalogue has format {found}, this gateway writes {schema.VERSION}")
