"""The durable queue: what is to go to which destination, what was tried, and what need not go again.

On SQLite (`agent.database`): a method's changes are durable when it returns; one connection, one call at a time in a
thread. An item is let go only when every one of its destinations has committed it. A damaged
database is set aside and begun anew: the spool and the watched folders still hold all that is to go. Refuses to
do: touching the files, sending.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import trio

from agent.database import connect, database_errors, transaction
from agent.items import SPOOL, Backlog, File, Item, NewItem, Outcome, Priority

T = TypeVar("T")
EVERY: Final = tuple(Priority)  # neighbours only, such as all, or all but the most urgent
COLUMNS: Final = "item.id, source, path, name, size_bytes, mtime_ns, item.priority, added_at_s, object_id"


class Queue:
    """An open queue; made by `open_queue`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._limiter = trio.CapacityLimiter(1)
        self._news = trio.Event()

    @property
    def news(self) -> trio.Event:
        """An event that is set at the next change; take it before asking, wait for it after."""
        return self._news

    async def add(self, items: Sequence[NewItem]) -> int:
        """Add items; one that is known by source and path is left alone, or begun anew when its file differs.

        Returns how many were added or begun anew.
        """
        return await self._write(self._add, items)

    async def ready(
        self,
        destination: str,
        now_s: float,
        limit: int,
        without: Iterable[int] = (),
        priorities: Sequence[Priority] = EVERY,
    ) -> list[Item]:
        """Return what may go to `destination` now: by priority, then in order of arrival, at most `limit`."""
        known = set(without)
        found = await self._read(self._ready, destination, now_s, limit + len(known), priorities)
        return [item for item in found if item.item_id not in known][:limit]

    async def next_try_s(self, destination: str, priorities: Sequence[Priority] = EVERY) -> float | None:
        """Return when the next waiting item may go, None when nothing waits."""
        query = (
            "SELECT min(next_try_s) FROM delivery"
            " WHERE destination = ? AND state = 'waiting' AND priority BETWEEN ? AND ?"
        )
        values = (destination, int(min(priorities)), int(max(priorities)))
        found: float | None = (await self._read(lambda: self._db.execute(query, values).fetchone()))[0]
        return found

    async def attempts(self, item_id: int, destination: str) -> int:
        """Return how often the item failed at `destination`."""
        query = "SELECT attempts FROM delivery WHERE item_id = ? AND destination = ?"
        row = await self._read(lambda: self._db.execute(query, (item_id, destination)).fetchone())
        return int(row[0]) if row else 0

    async def record(self, destination: str, outcomes: Sequence[Outcome]) -> None:
        """Note what became of items at `destination`; items that are no longer known are passed over."""
        await self._write(self._record, destination, outcomes)

    async def complete(self, limit: int) -> list[Item]:
        """Return items that every destination has, oldest first."""
        query = f"SELECT {COLUMNS} FROM item WHERE open_deliveries = 0 ORDER BY id LIMIT ?"  # noqa: S608 - constants
        return await self._read(lambda: [_item(row) for row in self._db.execute(query, (limit,))])

    async def spooled(self, limit: int) -> list[str]:
        """Return the names of the oldest received images that are still to go, at most `limit`."""
        query = "SELECT path FROM item WHERE source = ? AND open_deliveries > 0 ORDER BY path LIMIT ?"
        return await self._read(lambda: [os.fsdecode(row[0]) for row in self._db.execute(query, (SPOOL, limit))])

    async def let_go(self, items: Sequence[Item], *, keep: bool) -> None:
        """Drop items; with `keep` remember their files, so that they do not go again while they stay as they are."""
        await self._write(self._let_go, items, keep)

    async def unknown(self, source: str, files: Sequence[File]) -> list[File]:
        """Return those files that are neither queued nor kept as they are now."""
        return await self._read(self._unknown, source, files)

    async def kept_after(self, source: str, path: bytes, limit: int) -> list[bytes]:
        """Return the next paths of `source` that are kept, in order, after `path` (b"": from the start)."""
        query = "SELECT path FROM kept WHERE source = ? AND path > ? ORDER BY path LIMIT ?"
        return await self._read(lambda: [row[0] for row in self._db.execute(query, (source, path, limit))])

    async def forget_kept(self, source: str, paths: Sequence[bytes]) -> None:
        """Forget kept files that are no longer there."""
        query = "DELETE FROM kept WHERE source = ? AND path = ?"
        await self._write(lambda: self._db.executemany(query, [(source, path) for path in paths]))

    async def hurry(self) -> None:
        """Let everything that waits be tried at once: at a start, as the clock that it waits by ended with its process.

        How often it failed stays known, so what fails once more waits as long as it would have.
        """
        query = "UPDATE delivery SET next_try_s = 0 WHERE state = 'waiting' AND next_try_s != 0"
        await self._write(lambda: self._db.execute(query))

    async def unpark(self) -> int:
        """Let everything that was parked be tried once more; return how many."""
        query = "UPDATE delivery SET state = 'waiting', next_try_s = 0 WHERE state = 'parked'"
        return await self._write(lambda: self._db.execute(query).rowcount)

    async def backlogs(self) -> list[Backlog]:
        """Return what is still to go, per destination that anything was ever queued for and not let go."""
        return await self._read(lambda: [Backlog(*row) for row in self._db.execute(_BACKLOG)])

    async def parked(self, limit: int) -> list[tuple[str, str, bytes, str]]:
        """Return destination, source, path and reason of what was parked or cannot be read, newest first."""
        query = (
            "SELECT destination, source, path, reason FROM delivery JOIN item ON item.id = item_id"
            " WHERE state = 'parked' OR (state = 'waiting' AND reason = 'unusable_file')"
            " ORDER BY item_id DESC LIMIT ?"
        )
        return await self._read(lambda: self._db.execute(query, (limit,)).fetchall())

    async def _read(self, work: Callable[..., T], *arguments: object) -> T:
        def run() -> T:
            with database_errors():
                return work(*arguments)

        return await trio.to_thread.run_sync(run, limiter=self._limiter)

    async def _write(self, work: Callable[..., T], *arguments: object) -> T:
        def run() -> T:
            with database_errors(), transaction(self._db):
                return work(*arguments)

        result = await trio.to_thread.run_sync(run, limiter=self._limiter)
        self._news.set()
        self._news = trio.Event()
        return result

    def _add(self, items: Sequence[NewItem]) -> int:
        return sum(self._add_one(item) for item in items)

    def _add_one(self, new: NewItem) -> bool:
        row = self._db.execute(
            "SELECT id, size_bytes, mtime_ns FROM item WHERE source = ? AND path = ?", (new.source, new.file.path)
        ).fetchone()
        if row and row[1:] == (new.file.size_bytes, new.file.stamp):
            return False
        if row:
            self._db.execute("DELETE FROM item WHERE id = ?", row[:1])
        self._db.execute("DELETE FROM kept WHERE source = ? AND path = ?", (new.source, new.file.path))
        destinations = sorted(set(new.destinations))
        added = self._db.execute(
            "INSERT INTO item (source, path, name, size_bytes, mtime_ns, priority, added_at_s, open_deliveries)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (new.source, new.file.path, new.name, new.file.size_bytes, new.file.stamp, int(new.priority),
             time.time(), len(destinations)),
        )  # fmt: skip
        self._db.executemany(
            "INSERT INTO delivery (item_id, destination, priority, state) VALUES (?, ?, ?, 'waiting')",
            [(added.lastrowid, destination, int(new.priority)) for destination in destinations],
        )
        return True

    def _ready(self, destination: str, now_s: float, limit: int, priorities: Sequence[Priority]) -> list[Item]:
        query = (
            f"SELECT {COLUMNS} FROM delivery JOIN item ON item.id = item_id"  # noqa: S608 - constants
            " WHERE destination = ? AND state = 'waiting' AND delivery.priority BETWEEN ? AND ? AND next_try_s <= ?"
            " ORDER BY delivery.priority, item_id LIMIT ?"
        )
        values = (destination, int(min(priorities)), int(max(priorities)), now_s, limit)
        return [_item(row) for row in self._db.execute(query, values)]

    def _record(self, destination: str, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            changed = self._db.execute(
                "UPDATE delivery SET state = ?, next_try_s = ?, reason = ?, attempts = attempts + 1"
                " WHERE item_id = ? AND destination = ? AND state != 'done'",
                (outcome.state, outcome.next_try_s, outcome.reason, outcome.item_id, destination),
            ).rowcount
            if changed and outcome.state == "done":
                self._done(outcome)

    def _done(self, outcome: Outcome) -> None:
        """Count one delivery; when another destination got other bytes, the file changed between: begin anew."""
        known = self._db.execute("SELECT object_id FROM item WHERE id = ?", (outcome.item_id,)).fetchone()[0]
        if known in ("", outcome.object_id):
            self._db.execute(
                "UPDATE item SET object_id = ?, open_deliveries = open_deliveries - 1 WHERE id = ?",
                (outcome.object_id, outcome.item_id),
            )
            return
        self._db.execute(
            "UPDATE item SET object_id = '', open_deliveries = (SELECT count(*) FROM delivery WHERE item_id = id)"
            " WHERE id = ?",
            (outcome.item_id,),
        )
        self._db.execute("UPDATE delivery SET state = 'waiting' WHERE item_id = ?", (outcome.item_id,))

    def _let_go(self, items: Sequence[Item], keep: bool) -> None:
        self._db.executemany("DELETE FROM item WHERE id = ?", [(item.item_id,) for item in items])
        if keep:
            self._db.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)",
                [(i.source, i.file.path, i.file.size_bytes, i.file.stamp, i.object_id) for i in items],
            )

    def _unknown(self, source: str, files: Sequence[File]) -> list[File]:
        query = (
            "SELECT 1 FROM item WHERE source = ?1 AND path = ?2 AND size_bytes = ?3 AND mtime_ns = ?4 UNION ALL"
            " SELECT 1 FROM kept WHERE source = ?1 AND path = ?2 AND size_bytes = ?3 AND mtime_ns = ?4"
        )
        return [
            file
            for file in files
            if not self._db.execute(query, (source, file.path, file.size_bytes, file.stamp)).fetchone()
        ]


_BACKLOG: Final = """
SELECT destination, sum(state = 'waiting'), coalesce(sum(size_bytes) FILTER (WHERE state = 'waiting'), 0),
    sum(state = 'waiting' AND delivery.priority = 0), sum(state = 'parked'),
    min(added_at_s) FILTER (WHERE state = 'waiting')
FROM delivery JOIN item ON item.id = item_id GROUP BY destination ORDER BY destination
"""


def _item(row: tuple[int, str, bytes, str, int, int, int, float, str]) -> Item:
    item_id, source, path, name, size_bytes, mtime_ns, priority, added_at_s, object_id = row
    return Item(item_id, source, File(path, size_bytes, mtime_ns), name, Priority(priority), added_at_s, object_id)


@contextlib.asynccontextmanager
async def open_queue(path: Path) -> AsyncIterator[Queue]:
    """Open the queue in the file `path`, made if need be; its folder exists and is locked by the caller.

    Raises:
        StorageError, FullError: the disk failed or is full.
        SettingsError: the file is of a newer version.
    """
    connection = await trio.to_thread.run_sync(connect, path)
    try:
        yield Queue(connection)
    finally:
        connection.close()
