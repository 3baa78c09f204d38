"""The files of a catalogue that is made anew: beside the old one, then in its place in one step.

| file | what |
|---|---|
| `catalogue.db` | the catalogue |
| `catalogue.db.new` | the one that is being made; of no use to anybody before it is whole |
| `rebuilding` | there from the first step to the last: a gateway does not serve beside it (`refuse_half_made`) |
| `catalogue-aside-N/` | a catalogue that was there before; nothing there is deleted |

Killed at any moment, the next run begins anew. Refuses to do: what is in a catalogue.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from transfer import disk
from transfer.durable import make_folder_durably, write_file_durably
from transfer.errors import ConflictError, SettingsError, StorageError

MARK: Final = "rebuilding"
SUFFIXES: Final = ("-wal", "-shm", "")  # the file itself last: what is left behind without it is of no use


def refuse_half_made(data: Path) -> None:
    """Refuse to serve where a catalogue is being made.

    Raises:
        SettingsError: it is.
    """
    if disk.exists(str(data / MARK)):
        raise SettingsError(
            f"{data}: its catalogue was being made anew and that did not end; "
            "run `fascicle gateway rebuild` again until it does"
        )


@contextlib.contextmanager
def renewed(database: Path, *, keep_aside: bool) -> Iterator[Path]:
    """Give the path at which to make the new catalogue; it takes its place when the context ends well.

    It must be closed by then. After an error everything that was there before is as it was.

    Raises:
        ConflictError: there is a catalogue, and it may not be set aside.
        StorageError: the disk failed.
    """
    data, new = database.parent, database.with_name(f"{database.name}.new")
    mark = data / MARK
    interrupted = disk.exists(str(mark))
    if disk.exists(str(database)) and not (keep_aside or interrupted):
        raise ConflictError(f"{database} is there; with --keep-aside it is set aside when the new one is whole")
    make_folder_durably(data)
    _remove(new)
    write_file_durably(mark, b"")
    try:
        yield new
        _check_closed(new)
    except BaseException:
        _remove(new)
        if not interrupted:  # else what is in the place of the catalogue may not be one
            disk.unlink(str(mark))
            disk.flush_folder(str(data))
        raise
    _set_aside(database)
    disk.rename(str(new), str(database))
    disk.flush_folder(str(data))
    disk.unlink(str(mark))
    disk.flush_folder(str(data))


def _remove(path: Path) -> None:
    for suffix in SUFFIXES:
        disk.unlink(f"{path}{suffix}")


def _check_closed(path: Path) -> None:
    if not disk.exists(str(path)) or disk.exists(f"{path}-wal"):
        raise StorageError(f"{path} was not closed whole; see the disk's room and health")


def _set_aside(database: Path) -> None:
    """Move what was there into a folder of its own."""
    if not disk.exists(str(database)):
        return
    with contextlib.suppress(sqlite3.Error):  # a damaged one is kept as it is
        connection = sqlite3.connect(database, timeout=1)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
    number = 1
    while disk.exists(str(aside := database.parent / f"catalogue-aside-{number}")):
        number += 1
    make_folder_durably(aside)
    for suffix in SUFFIXES:
        if disk.exists(f"{database}{suffix}"):
            disk.rename(f"{database}{suffix}", str(aside / f"{database.name}{suffix}"))
    disk.flush_folder(str(aside))
