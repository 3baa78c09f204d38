"""Notices at the start that the catalogue is lost, or an old copy of it: the audit trail names commits that it lacks.

A commit is durable in the catalogue before the trail has it, so a catalogue that lacks one that the trail has is not
the one that answered for it. To serve it would leave acknowledged objects out of every listing, and say nothing. A
catalogue that was made anew knows how long the trail was then; what was committed before is among its objects, without
a name. An old trail beside an old catalogue tells nothing. Refuses to do: mending (`gateway.rebuild`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from gateway.database import Database, insert_or_update
from gateway.schema import meta, transfer
from gateway.trail import body_of
from transfer.errors import CorruptError, SettingsError
from transfer.protocol.messages import UNREADABLE

BLOCK_BYTES: Final = 1 << 16
COMMITS: Final = ("transfer_committed", "objects_announced")
LAST: Final = 16  # commits; those that wait for each other may be noted in another order than they were written
TRAIL_LINES: Final = "trail_lines"  # in `meta`: how long the trail was when this catalogue was made anew


class Line(msgspec.Struct, frozen=True):
    """What is of interest in a line of the trail."""

    n: int
    event: str
    at: str = ""
    transfer_id: str = ""


def last_commits(trail_path: Path) -> list[Line]:
    """Return the last commits that the trail tells of, the newest first.

    Raises:
        SettingsError: it cannot be read.
    """
    found: list[Line] = []
    for line in _newest_first(trail_path):
        if line.event in COMMITS and line.transfer_id:
            found.append(line)
            if len(found) == LAST:
                break
    return found


def line_count(trail_path: Path) -> int:
    """Return how many lines the trail has.

    Raises:
        SettingsError: it cannot be read.
    """
    return next((line.n for line in _newest_first(trail_path)), 0)


def refuse_lost(database: Path, commits: list[Line]) -> None:
    """Refuse to begin an empty catalogue where there was one.

    Raises:
        SettingsError: there is none, and the trail tells of commits.
    """
    if commits and not database.exists():
        raise SettingsError(
            f"{database} is lost: {commits[0].transfer_id} was committed at {commits[0].at}; put it back, or make it "
            "anew with `fascicle gateway rebuild`"
        )


async def refuse_old(database: Database, path: Path, commits: list[Line]) -> None:
    """Refuse a catalogue that lacks what was committed.

    Raises:
        SettingsError: it does.
        StorageError: it cannot be read.
    """
    missing = await database.read(lambda connection: _missing(connection, commits))
    if missing:
        raise SettingsError(
            f"{path} is older than what it answered for: {len(missing)} of the last {len(commits)} commits are not "
            f"in it, such as {missing[0].transfer_id} at {missing[0].at}; put the newest copy back, or make it anew "
            "with `fascicle gateway rebuild --keep-aside`"
        )


def note_trail(connection: Connection, lines: int) -> None:
    """Write into a catalogue that is made anew how long the trail is."""
    insert_or_update(connection, meta, [{"key": TRAIL_LINES, "value": str(lines)}])


def _missing(connection: Connection, commits: list[Line]) -> list[Line]:
    found = connection.execute(select(meta.c.value).where(meta.c.key == TRAIL_LINES)).scalar()
    since = int(found or 0)
    ids = [line.transfer_id for line in commits]
    rows = connection.execute(
        select(transfer.c.transfer_id).where(transfer.c.transfer_id.in_(ids), transfer.c.state == "committed")
    )
    here = {row.transfer_id for row in rows}  # an older copy may have as open what was committed since
    return [line for line in commits if line.n > since and line.transfer_id not in here]


def _newest_first(path: Path) -> Iterator[Line]:
    """Give out the whole lines from the last to the first; a half one at the end is none."""
    try:
        with path.open("rb") as file:
            position, rest = file.seek(0, 2), b""
            whole = False  # whether a line's end was met
            while position:
                size = min(BLOCK_BYTES, position)
                position = file.seek(position - size)
                parts = (file.read(size) + rest).split(b"\n")
                rest = parts[0]
                for part in reversed(parts[1:]):
                    if whole:
                        yield _read(path, part)
                    whole = True
            if whole:
                yield _read(path, rest)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def _read(path: Path, line: bytes) -> Line:
    try:
        return msgspec.json.decode(body_of(line), type=Line)
    except (CorruptError, *UNREADABLE) as error:
        raise SettingsError(f"{path}: a line that cannot be read; see `fascicle audit verify`") from error
