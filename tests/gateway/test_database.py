"""The writer: units together in one transaction, none takes another along, answers after the commit."""

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, select, text
from structlog.testing import capture_logs

from gateway import database as databases
from gateway.database import Database, connect
from gateway.rehearsal import rehearse
from gateway.schema import meta, metadata
from tests.gateway.kit import Gateway, Identities, settings
from transfer.errors import ConflictError, FullError, SettingsError, StorageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


def put(key: str):
    return lambda connection: connection.execute(insert(meta), [{"key": key, "value": "x"}]).rowcount


def keys(connection) -> set[str]:
    return set(connection.execute(select(meta.c.key)).scalars()) - {"version"}


def test_refused_unit_takes_no_other_along(path: Path) -> None:
    database = Database(path)
    hold = threading.Event()

    def refuse(connection):
        put("refused")(connection)
        raise ConflictError("no")

    async def scenario() -> list:
        first = asyncio.create_task(database.write(lambda _: hold.wait(10)))
        units = [asyncio.create_task(database.write(unit)) for unit in (put("a"), refuse, put("b"))]
        await asyncio.sleep(0)  # they stand in the queue now, behind the first
        hold.set()
        return await asyncio.gather(first, *units, return_exceptions=True)

    found = asyncio.run(scenario())
    assert found[1] == 1
    assert isinstance(found[2], ConflictError)
    assert found[3] == 1
    assert asyncio.run(database.read(keys)) == {"a", "b"}
    database.close()


def test_failing_database_is_a_storage_error_and_keeps_nothing(path: Path) -> None:
    database = Database(path)
    asyncio.run(database.write(put("a")))
    with pytest.raises(StorageError):
        asyncio.run(database.write(put("a")))  # the key is there already
    with pytest.raises(StorageError):
        asyncio.run(database.read(put("b")))  # readers cannot write
    asyncio.run(database.write(put("c")))
    assert asyncio.run(database.read(keys)) == {"a", "c"}
    database.close()


def test_a_full_disk_is_told_once_and_then_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(databases, "time", SimpleNamespace(monotonic=lambda: now_s))

    def too_much(connection) -> None:
        connection.execute(insert(meta), [{"key": "large", "value": "x" * (1 << 22)}])

    with closing(Database(path)) as database, capture_logs() as logs:
        asyncio.run(database.write(lambda connection: connection.execute(text("PRAGMA max_page_count = 1"))))
        for pause_s in (0.0, 1.0, 1.0, 9.0):
            now_s += pause_s
            with pytest.raises(FullError):
                asyncio.run(database.write(too_much))
    told = [(log["code"], log["count"]) for log in logs if log["event"] == "catalogue_write_failed"]
    assert told == [("full", 1), ("full", 3)]


def test_what_was_answered_is_there_after_a_reopen(path: Path) -> None:
    for key in "abc":
        database = Database(path)
        asyncio.run(database.write(put(key)))
        database.close()
    database = Database(path)
    assert asyncio.run(database.read(keys)) == {"a", "b", "c"}
    database.close()


def test_what_it_says_of_patients_is_not_for_everybody(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with closing(Database(path)) as database:
            asyncio.run(database.write(put("x")))
            modes = {each.name: each.stat().st_mode & 0o007 for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"catalogue.db": 0, "catalogue.db-wal": 0, "catalogue.db-shm": 0}


def test_one_that_everybody_could_read_is_closed_to_others_at_the_next_start(
    identities: Identities, tmp_path: Path
) -> None:
    """As SQLite made it for earlier versions, and a gateway that was killed left its log."""
    config = settings(identities, tmp_path / "gateway")
    Gateway(identities, config).stop()
    files = [config.database.with_name(f"catalogue.db{suffix}") for suffix in ("", "-wal", "-shm")]

    def start() -> list[list[str]]:
        with capture_logs() as logs:
            Gateway(identities, config).stop()
        return [log["files"] for log in logs if log["event"] == "catalogue_was_open_to_others"]

    with closing(connect(config.database, read_only=False)) as held:
        held.execute("INSERT INTO meta VALUES ('x', 'y')")
        for each in files:
            each.chmod(0o644)
        assert start() == [[each.name for each in files]]
        assert [each.stat().st_mode & 0o777 for each in files] == [0o640] * 3
        assert start() == []


def test_durability_is_set(path: Path) -> None:
    database = Database(path)
    pragmas = ("journal_mode", "synchronous", "mmap_size", "foreign_keys")

    def read(connection) -> list:
        return [connection.execute(text(f"PRAGMA {pragma}")).scalar() for pragma in pragmas]

    assert asyncio.run(database.write(read)) == ["wal", 2, 0, 1]
    database.close()


@pytest.mark.parametrize("content", [b"not a database" * 1000])
def test_what_is_no_catalogue_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="cannot be opened"):
        Database(path)
    assert path.read_bytes() == content


def test_catalogue_of_another_version_is_refused(path: Path) -> None:
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    connection.close()
    with pytest.raises(SettingsError, match="has format 99, this gateway writes 1"):
        Database(path)


def rows(connection) -> dict[str, int]:
    return {table.name: len(connection.execute(select(table)).all()) for table in metadata.sorted_tables}


def test_rehearsal_plays_a_transfer_to_its_end_and_leaves_nothing(path: Path) -> None:
    database = Database(path)
    before = asyncio.run(database.read(rows))
    asyncio.run(rehearse(database, Ed25519PrivateKey.generate()))
    assert asyncio.run(database.read(rows)) == before
    database.close()


def test_rehearsal_on_a_broken_catalogue_is_told(path: Path) -> None:
    database = Database(path)
    asyncio.run(database.write(lambda connection: connection.execute(text("DROP TABLE replica"))))
    with pytest.raises(StorageError):
        asyncio.run(rehearse(database, Ed25519PrivateKey.generate()))
    database.close()


def pragmas(connection: sqlite3.Connection) -> dict[str, object]:
    names = ("journal_mode", "synchronous", "mmap_size", "foreign_keys", "query_only", "trusted_schema")
    return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}


def test_one_connection_writes_and_checkpoints_durably_and_the_others_can_do_neither(path: Path) -> None:
    database = Database(path)
    common = {"journal_mode": "wal", "mmap_size": 0, "foreign_keys": 1, "trusted_schema": 0}
    with closing(database._writer.raw_connection()) as writer:
        assert pragmas(writer.driver_connection) == common | {"synchronous": 2, "query_only": 0}, "2 is FULL"
        assert writer.driver_connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (8000,)
    asyncio.run(database.write(put("a")))
    with closing(database._readers.raw_connection()) as reader:
        found = pragmas(reader.driver_connection)
        assert {name: found[name] for name in common} == common and found["query_only"] == 1
        before = path.read_bytes(), path.with_name("catalogue.db-wal").read_bytes()
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "DELETE FROM meta", "PRAGMA journal_mode = DELETE"):
            with pytest.raises(sqlite3.OperationalError):
                reader.driver_connection.execute(statement)
        assert (path.read_bytes(), path.with_name("catalogue.db-wal").read_bytes()) == before
    database.close()


def test_a_reader_that_closes_last_leaves_the_log_to_the_writer(path: Path) -> None:
    database = Database(path)
    asyncio.run(database.write(put("a")))
    log = path.with_name("catalogue.db-wal")
    copied = path.with_name("copy.db")
    copied.write_bytes(path.read_bytes())
    copied.with_name("copy.db-wal").write_bytes(log.read_bytes())  # as a gateway that was killed leaves it
    before = copied.with_name("copy.db-wal").read_bytes()
    with closing(connect(copied, read_only=True)) as reader:
        assert reader.execute("SELECT count(*) FROM meta WHERE key = 'a'").fetchone() == (1,)
    assert copied.with_name("copy.db-wal").read_bytes() == before
    assert copied.read_bytes() == path.read_bytes()
    database.close()


def test_a_catalogue_that_cannot_have_its_log_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself goes on with a rollback journal, of which a power cut may take the last commit back."""
    monkeypatch.setattr(databases, "LOCK_WAIT_S", 0.1)
    Database(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM meta").fetchone()  # holds what the change of the mode needs
        with pytest.raises(SettingsError, match=r"cannot be opened"):
            Database(path)
