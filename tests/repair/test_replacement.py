"""The files of a rebuild: the old catalogue stays until the new one is whole, and a kill anywhere is only a repeat."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.replacement import MARK, refuse_half_made, renewed
from transfer import disk
from transfer.errors import ConflictError, SettingsError, StorageError


def write(path: Path, value: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (v)")
    connection.execute("INSERT INTO t VALUES (?)", [value])
    connection.commit()
    connection.close()


def read(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [value for (value,) in connection.execute("SELECT v FROM t")]
    finally:
        connection.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


def test_a_catalogue_that_is_there_is_not_touched_unasked(database: Path) -> None:
    write(database, "old")
    before = database.read_bytes()
    with pytest.raises(ConflictError, match="--keep-aside"), renewed(database, keep_aside=False):
        pytest.fail("never begun")
    assert [path.name for path in database.parent.iterdir()] == ["catalogue.db"]
    assert database.read_bytes() == before
    refuse_half_made(database.parent)


def test_the_old_one_is_set_aside_whole_when_the_new_one_is(database: Path) -> None:
    write(database, "old")
    held = sqlite3.connect(database)  # keeps a -wal with what was written last
    held.execute("INSERT INTO t VALUES ('last')")
    held.commit()
    with renewed(database, keep_aside=True) as path:
        with pytest.raises(SettingsError, match="rebuild"):
            refuse_half_made(database.parent)
        assert read(database) == ["old", "last"]
        write(path, "new")
    held.close()
    assert read(database) == ["new"]
    assert read(database.parent / "catalogue-aside-1/catalogue.db") == ["old", "last"]
    refuse_half_made(database.parent)


def test_an_error_leaves_everything_as_it_was(database: Path) -> None:
    write(database, "old")
    with pytest.raises(StorageError, match="on purpose"), renewed(database, keep_aside=True) as path:
        write(path, "half")
        raise StorageError("on purpose")
    assert [path.name for path in database.parent.iterdir()] == ["catalogue.db"]
    assert read(database) == ["old"]


def test_a_catalogue_that_was_not_closed_does_not_take_the_place(database: Path) -> None:
    with pytest.raises(StorageError, match="not closed"), renewed(database, keep_aside=False) as path:
        write(path, "new")
        Path(f"{path}-wal").write_bytes(b"frames")
    assert not database.exists()


class _Killed(BaseException):
    """The end of the process: nothing after it runs."""


@pytest.mark.parametrize("step", range(22))
@pytest.mark.parametrize("old", [True, False])
def test_killed_before_any_step_on_disk_the_next_run_finishes(
    database: Path, monkeypatch: Any, step: int, old: bool
) -> None:
    """A gateway that looks after the kill finds the old catalogue, the new one whole, or is refused."""
    if old:
        write(database, "old")
    steps = iter(range(1000))
    with monkeypatch.context() as patch:
        for name in ("rename", "unlink", "flush_folder", "create", "write_at", "flush_data", "make_folders"):
            patch.setattr(disk, name, _dying(getattr(disk, name), steps, step))
        try:
            with renewed(database, keep_aside=True) as path:
                write(path, "new")
            killed = False
        except _Killed:
            killed = True
    if not (database.parent / MARK).exists():
        refuse_half_made(database.parent)
        assert (not database.exists() and not old) or read(database) in (["old"], ["new"])
    with renewed(database, keep_aside=not (database.parent / MARK).exists()) as path:
        write(path, "again")
    assert read(database) == ["again"]
    kept = [read(path) for path in database.parent.glob("catalogue-aside-*/catalogue.db")]
    assert (["old"] in kept) == old
    assert killed or step >= 14  # the steps that there are were all tried


def _dying(call: Any, steps: Any, last: int) -> Any:
    dead = False

    def wrapper(*args: Any) -> Any:
        nonlocal dead
        if dead or next(steps) >= last:
            dead = True
            raise _Killed
        return call(*args)

    return wrapper
