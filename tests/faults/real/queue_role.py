"""The agent's queue as a campaign works it: files are added, fail or are done at two destinations, and are let go.

`a` takes everything; `b` refuses what divides by `REFUSED`, and is tried again. Even seeds are of a watched folder and
are kept once they are let go; odd ones are of the spool and are forgotten then. What `agent.queue` returned from is the
promise. The check: SQLite finds its file sound, and nothing was set aside; every file that was added is queued whole,
or kept, or was let go of rightly: what `b` refuses never is; what is done never waits again, and is counted right; a
failure stays counted. Refuses to do: the files, and sending them.
"""

import itertools
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Never, TypeVar

import trio

import agent.database
from agent.items import SPOOL, File, Item, NewItem, Outcome, Priority
from agent.lock import open_lock
from agent.queue import Queue, open_queue
from tests.faults.real.forks import Say
from tests.faults.real.role import Role, promise
from transfer.errors import FascicleError
from transfer.objects import object_id

T = TypeVar("T")
Kept = list[tuple[str, int]]  # promises: keys and seeds
BATCH: Final = ((1, 2, 3), (4, 5, 6), (7, 8, 9, 10, 11, 12))
REFUSED: Final = 3
TRIED_AGAIN_S: Final = 3600.0  # by the clock of the process: at the next start
AT_ONCE: Final = 8
FOLDER: Final = "/in"
NAME_BYTES: Final = 2000  # so that a few files fill a small disk
CHECKPOINT_PAGES: Final = 80  # of the log, which begins anew in the middle of a batch then


def prepare(folder: Path) -> None:
    """Leave nothing: the agent makes its folder."""


def batch(folder: Path, say: Say) -> None:
    """Take `BATCH` all the way; what an error refused is tried once more."""
    agent.database.CHECKPOINT_PAGES = CHECKPOINT_PAGES
    trio.run(_batch, folder, say)


async def _batch(folder: Path, say: Say) -> None:
    async with AsyncExitStack() as stack:
        await _twice(partial(_lock, stack, folder), "lock", say)
        queue = await _twice(lambda: stack.enter_async_context(open_queue(folder / "queue.db")), "open", say)
        for number, seeds in enumerate(BATCH):
            for name, step in _steps(queue, seeds, first=number == 0):
                _promise_all(say, await _twice(step, name, say))


async def _lock(stack: AsyncExitStack, folder: Path) -> None:
    """Make the folder, as an agent does before it opens its queue."""
    stack.enter_context(open_lock(folder))


async def _twice(step: Callable[[], Awaitable[T]], name: str, say: Say) -> T:
    try:
        return await step()
    except FascicleError:
        pass
    try:
        return await step()
    except FascicleError:
        say({"refused": name})
        raise


def for_ever(folder: Path, first_seed: int, say: Say) -> None:
    """Take group after group, of one to eight files, and what earlier lives left."""
    agent.database.CHECKPOINT_PAGES = CHECKPOINT_PAGES
    trio.run(_for_ever, folder, first_seed, say)


async def _for_ever(folder: Path, first_seed: int, say: Say) -> None:
    with open_lock(folder):
        async with open_queue(folder / "queue.db") as queue:
            await _work(queue, first_seed, say)


async def _work(queue: Queue, first_seed: int, say: Say) -> Never:
    say({"open": True})
    seeds = itertools.count(first_seed)
    for number in itertools.count():
        group = list(itertools.islice(seeds, 1 + number * 5 % AT_ONCE))
        for _, step in _steps(queue, group, first=number == 0):
            _promise_all(say, await step())


def _steps(queue: Queue, seeds: Sequence[int], *, first: bool) -> list[tuple[str, Callable[[], Awaitable[Kept]]]]:
    """Return what an agent does with these files, and before them at its start."""
    steps = {"add": partial(_add, queue, seeds), "a": partial(_deliver, queue, "a"), "b": partial(_deliver, queue, "b")}
    start = {"start": partial(_start, queue)} if first else {}
    return list((start | steps | {"let go": partial(_let_go, queue)}).items())


def _promise_all(say: Say, kept: Kept) -> None:
    for key, seed in kept:
        promise(say, key, seed)


async def _start(queue: Queue) -> Kept:
    """Let everything be tried anew, as after a start."""
    await queue.hurry()
    await queue.unpark()
    return []


async def _add(queue: Queue, seeds: Sequence[int]) -> Kept:
    """Add what is new, as the watch and the intake do."""
    new = await queue.unknown(FOLDER, [file_of(seed) for seed in seeds if not seed % 2])
    await queue.add([item_of(seed) for seed in seeds if seed % 2 or file_of(seed) in new])
    return [(f"{seed} added", seed) for seed in seeds]


async def _deliver(queue: Queue, destination: str) -> Kept:
    """Let the destination take, or refuse, what is ready for it."""
    now_s = trio.current_time()
    items = await queue.ready(destination, now_s, AT_ONCE)
    failures = {item.item_id: await queue.attempts(item.item_id, destination) for item in items}
    outcomes = [_outcome(item, destination, failures[item.item_id], now_s) for item in items]
    await queue.record(destination, outcomes)
    return [
        (f"{seed_of(item.name)} {_said(each, destination, failures[item.item_id])}", seed_of(item.name))
        for item, each in zip(items, outcomes, strict=True)
    ]


def _outcome(item: Item, destination: str, failures: int, now_s: float) -> Outcome:
    """Return done, or waiting and parked in turn."""
    if takes(destination, seed_of(item.name)):
        return Outcome(item.item_id, "done", object_id=object_of(seed_of(item.name)))
    if failures % 2:
        return Outcome(item.item_id, "parked", reason="not_dicom")
    return Outcome(item.item_id, "waiting", next_try_s=now_s + TRIED_AGAIN_S, reason="busy")


def _said(outcome: Outcome, destination: str, failures: int) -> str:
    return f"done {destination}" if outcome.state == "done" else f"failed {destination} {failures + 1}"


async def _let_go(queue: Queue) -> Kept:
    """Let go of what every destination has, as the releases do."""
    items = await queue.complete(AT_ONCE)
    for keep in (True, False):
        if chosen := [item for item in items if (item.source != SPOOL) == keep]:
            await queue.let_go(chosen, keep=keep)
    return [(f"{seed_of(item.name)} gone", seed_of(item.name)) for item in items]


def takes(destination: str, seed: int) -> bool:
    """Tell whether a destination takes the file of a seed."""
    return destination == "a" or seed % REFUSED != 0


def file_of(seed: int) -> File:
    """Return the file of a seed."""
    path = f"{FOLDER}/{seed:020d}" if seed % 2 == 0 else f"{seed:020d}"
    return File(path.encode() + b"x" * NAME_BYTES, seed % 1000 + 1, 0 if seed % 2 else seed)


def item_of(seed: int) -> NewItem:
    """Return the file of a seed as it is queued."""
    source = SPOOL if seed % 2 else FOLDER
    return NewItem(source, file_of(seed), f"{seed}.dcm", Priority(seed % len(Priority)), ("a", "b"))


def seed_of(name: str) -> int:
    """Return the seed of an item, by its name."""
    return int(name.removesuffix(".dcm"))


def object_of(seed: int) -> str:
    """Return what both destinations call the object of a seed."""
    return object_id(b"%d" % seed)


class Row(NamedTuple):
    """An item as the queue holds it; its deliveries by destination: state, and failures."""

    whole: bool
    object_id: str
    open_deliveries: int
    deliveries: dict[str, tuple[str, int]]


class Found(NamedTuple):
    """All that the queue holds, by seed."""

    items: dict[int, Row]
    kept: dict[int, tuple[File, str]]


def check(folder: Path, promised: Mapping[str, int]) -> list[str]:
    """Open the queue again, and judge."""
    with open_lock(folder), closing(agent.database.connect(folder / "queue.db")) as connection:
        problems = [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        problems += [f"SQLite: foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        found = _read(connection)
    problems += [f"set aside: {path.name}" for path in folder.glob("*.damaged-*")]
    for seed, row in found.items.items():
        problems += [f"{seed}: {text}" for text in _judge_row(seed, row)]
        problems += [f"{seed}: queued and kept"] if seed in found.kept else []
    problems += [f"{seed}: kept otherwise" for seed, kept in found.kept.items() if kept != _as_kept(seed)]
    return problems + [f"LOST {key}: {text}" for key, seed in promised.items() if (text := _lost(key, seed, found))]


def _read(connection: sqlite3.Connection) -> Found:
    """Read every table."""
    deliveries: dict[int, dict[str, tuple[str, int]]] = {}
    for item_id, destination, state, failures in connection.execute(
        "SELECT item_id, destination, state, attempts - (state = 'done') FROM delivery"
    ):
        deliveries.setdefault(item_id, {})[destination] = (state, failures)
    items, kept = {}, {}
    for item_id, source, path, name, size_bytes, mtime_ns, priority, known, count in connection.execute(
        "SELECT id, source, path, name, size_bytes, mtime_ns, priority, object_id, open_deliveries FROM item"
    ):
        found = NewItem(source, File(path, size_bytes, mtime_ns), name, Priority(priority), ("a", "b"))
        whole = found == item_of(seed_of(name))
        items[seed_of(name)] = Row(whole, known, count, deliveries.get(item_id, {}))
    for source, path, size_bytes, mtime_ns, known in connection.execute("SELECT * FROM kept"):
        seed = int(path.removeprefix(f"{source}/".encode())[:20])
        kept[seed] = (File(path, size_bytes, mtime_ns), known)
    return Found(items, kept)


def _as_kept(seed: int) -> tuple[File, str] | None:
    """Return how the file of a seed is kept; None where it never may be."""
    return (file_of(seed), object_of(seed)) if seed % 2 == 0 and takes("b", seed) else None


def _judge_row(seed: int, row: Row) -> list[str]:
    """Return what no item may be, whatever was promised of it."""
    done = [destination for destination, (state, _) in row.deliveries.items() if state == "done"]
    wrong = {
        "queued as another file": not row.whole,
        f"queued for {sorted(row.deliveries)}": sorted(row.deliveries) != ["a", "b"],
        "done where it was refused": not all(takes(destination, seed) for destination in done),
        f"counted as open {row.open_deliveries} times": row.open_deliveries != len(row.deliveries) - len(done),
        f"called {row.object_id}": row.object_id != (object_of(seed) if done else ""),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]


def _lost(key: str, seed: int, found: Found) -> str:
    """Return what a promise lacks; "" where it is kept."""
    what, *about = key.split()[1:]
    row = found.items.get(seed)
    if what == "gone":
        return "queued again" if row else "not kept" if seed % 2 == 0 and seed not in found.kept else ""
    if row is None:  # a spooled file leaves nothing behind, once both have it
        return "" if seed in found.kept or (seed % 2 and takes("b", seed)) else "neither queued nor kept"
    state, failures = row.deliveries.get(about[0], ("", 0)) if about else ("", 0)
    if what == "done":
        return "" if state == "done" else f"{state} again"
    return f"failed {failures} times" if what == "failed" and failures < int(about[1]) else ""


QUEUE: Final = Role("queue", prepare, batch, for_ever, check, warm=False, writes_again=True)
