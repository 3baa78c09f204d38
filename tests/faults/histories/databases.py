"""The production code's databases on a simulated machine: opened, worked and read as the gateway and the agent do.

A subject is one database: its steps, each of one transaction, and how it is opened again and read whole. The logs after
which it checkpoints are made short (`SIZES`), so that a few steps meet checkpoints, and logs that begin anew. Refuses
to do: faults, judging (`crash_states`).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import trio

import agent.database
import agent.queue
import gateway.clock
import gateway.database
from agent.items import File, NewItem, Outcome, Priority
from agent.queue import Queue
from gateway import rebuilding, schema
from gateway.damage import note_copied, note_gone
from gateway.database import Database, Unit, connect
from gateway.merging import Round
from gateway.replacement import refuse_half_made, renewed
from tests.faults.histories.sqlite_vfs import SqliteOnMachine, open_sqlite
from tests.faults.histories.world import HOME, Violation, World, replaced_by
from tests.faults.real import catalogue_role
from transfer.disk import exists
from transfer.errors import FascicleError, SettingsError
from transfer.receipts import ReceiptBatch

T = TypeVar("T")
Dump = dict[str, list[Any]]
CATALOGUE, QUEUE = Path(HOME) / "gateway" / "catalogue.db", Path(HOME) / "agent" / "queue.db"
SHORT = {"CHECKPOINT_PAGES": 12, "LOG_KEPT_BYTES": 32 << 10}
SIZES: dict[ModuleType, dict[str, Any]] = {gateway.database: SHORT, agent.database: SHORT}
TRANSFERS = 2


class Subject(NamedTuple):
    """`play` calls its argument after each step that was answered; `dump` opens what is there, and reads it whole."""

    name: str
    prepare: Callable[[], None]
    play: Callable[[Callable[[], None]], None]
    dump: Callable[[], Dump]


@contextmanager
def open_databases(world: World) -> Iterator[SqliteOnMachine]:
    """Let databases be opened on the machine of `world`, which must be in place."""
    machine = world.machine
    clock = SimpleNamespace(time=lambda: machine.now_s, time_ns=lambda: int(machine.now_s * 1e9))
    silent = SimpleNamespace(**dict.fromkeys(("info", "warning", "error", "critical"), lambda *_, **__: None))
    values = {
        gateway.clock: {"datetime": SimpleNamespace(now=lambda zone: datetime.fromtimestamp(machine.now_s, UTC))},
        gateway.database: {"get_logger": lambda: silent},
        agent.database: {"time": clock, "log": silent},
        agent.queue: {"time": clock},
    }
    with open_sqlite(machine) as under, replaced_by(values, SIZES):
        yield under


def _whole(connection: Any, tables: list[str]) -> Dump:
    """Read every table.

    Raises:
        Violation: SQLite finds its file damaged.
    """
    found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        raise Violation(f"integrity_check: {found[:3]}")
    return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in tables}


# The gateway's catalogue.

_TABLES = [table.name for table in schema.metadata.sorted_tables]


def _dump_catalogue(path: Path = CATALOGUE) -> Dump:
    """Open as the gateway does; where all tables are there already, its connection alone is enough."""
    with closing(connect(path, read_only=False)) if exists(str(path)) else nullcontext() as connection:
        if connection is not None and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return _whole(connection, _TABLES)
    with closing(Database(path)) as database, database._writer.begin() as connection:
        return _whole(connection.connection.cursor(), _TABLES)


def _steps() -> Iterator[Unit[Any]]:
    for seed in range(1, TRANSFERS + 1):
        yield from catalogue_role.units(seed)
    gone = [bytes.fromhex(each) for each in catalogue_role.ids(1)[:2]]
    yield lambda connection: note_gone(connection, catalogue_role.NODE, "disk-1", gone)
    receipts = [catalogue_role.receipt_of(1, number) for number in range(2)]
    copied = [each.__class__(**{**_fields(each), "node_ids": [catalogue_role.NODE, "node-2"]}) for each in receipts]
    batch = ReceiptBatch(catalogue_role.NODE, "disk-1", "", copied)
    yield lambda connection: note_copied(connection, batch, "node-2")


def _fields(receipt: Any) -> dict[str, Any]:
    return {name: getattr(receipt, name) for name in receipt.__struct_fields__}


def _play_catalogue(answered: Callable[[], None]) -> None:
    with closing(twice(lambda: Database(CATALOGUE))) as database, asyncio.Runner() as runner:
        for unit in _steps():
            twice(lambda unit=unit: runner.run(database.write(unit)))
            answered()


def twice(step: Callable[[], T]) -> T:
    """What an error of ours refused is done once more, as whoever got that answer would; then it must succeed."""
    try:
        return step()
    except FascicleError:
        return step()


def _play_rebuild(answered: Callable[[], None]) -> None:
    twice(_rebuild)
    answered()


def _rebuild() -> None:
    """Make the catalogue anew, from what a node lists."""
    with renewed(CATALOGUE, keep_aside=True) as path, closing(Database(path)) as database, asyncio.Runner() as runner:
        for seed in (3, 4):
            receipts = [catalogue_role.receipt_of(seed, number) for number in range(3)]
            found = Round([ReceiptBatch(catalogue_role.NODE, "disk-1", "", receipts)], [], [])
            runner.run(database.write(partial(rebuilding.write_round, found=found, replicas=1)))
        runner.run(database.write(partial(rebuilding.finish, node_ids=[catalogue_role.NODE], trail_lines=0)))


def _start_gateway() -> Dump:
    """As `gateway.service` starts; where it refuses, do what it says."""
    try:
        refuse_half_made(CATALOGUE.parent)
    except SettingsError:
        _rebuild()
    return _dump_catalogue()


# The agent's queue.


def _dump_queue() -> Dump:
    with closing(agent.database.connect(QUEUE)) as connection:
        return _whole(connection, ["item", "delivery", "kept"])


def _play_queue(answered: Callable[[], None]) -> None:
    with closing(twice(lambda: agent.database.connect(QUEUE))) as connection:
        queue = Queue(connection)
        for number in range(4):
            steps = [
                partial(queue.add, [new_item(f"{number}-{each}") for each in range(4)]),
                partial(_record, queue, "a"),
                partial(_record, queue, "b"),
                partial(_let_go, queue, keep=number % 2 == 0),
            ]
            for step in steps:
                twice(lambda step=step: trio.run(step))
                answered()


def new_item(name: str) -> NewItem:
    """Return a file of a watched folder as it is queued."""
    return NewItem("/in", File(name.encode() * 40, 10, 5), name * 40, Priority.NORMAL, ("a", "b"))


async def _record(queue: Queue, destination: str) -> None:
    ready = await queue.ready(destination, 0, 9)
    done = [Outcome(item.item_id, "done", object_id=f"id of {item.name}") for item in ready[1:]]
    await queue.record(destination, [*done, Outcome(ready[0].item_id, "waiting", next_try_s=9.0, reason="busy")])


async def _let_go(queue: Queue, *, keep: bool) -> None:
    await queue.let_go(await queue.complete(3), keep=keep)


def _nothing() -> None:
    """Begin with an empty folder."""


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("catalogue", _nothing, _play_catalogue, _dump_catalogue),
        Subject("rebuild", partial(_play_catalogue, lambda: None), _play_rebuild, _start_gateway),
        Subject("queue", lambda: gateway.database.make_folder_durably(QUEUE.parent), _play_queue, _dump_queue),
    )
}
SQLITE_VERSION = sqlite3.sqlite_version
