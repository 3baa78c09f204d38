"""Puts a simulated machine under the production code: nothing that it does reaches the real disk, clock or threads.

What is replaced stands in `_replaced`, by module and name. Sizes at which the store changes its ways are made 64 times
smaller (`SIZES`), so that objects of a few kilobytes meet all of them. Refuses to do: steps, judging.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import local
from types import ModuleType, SimpleNamespace
from typing import Any

import trio

import agent.spool
import nodes.census
import nodes.incoming
import nodes.opening
import nodes.reading
import nodes.room
import nodes.store
import transfer.disk
import transfer.durable
from tests.faults.histories.machine import Machine
from tests.faults.histories.strands import Strands

HOME = "/disk/home"
MEMORY_BYTES = 16 << 10
SIZES = {
    nodes.incoming: {
        "MEMORY_BYTES": MEMORY_BYTES,
        "WRITEBACK_BYTES": 128 << 10,
        "BLOCK_BYTES": 16 << 10,
        "DIRECT_FROM_BYTES": 4 << 10,
        "DIRECT_TO_BYTES": MEMORY_BYTES + nodes.incoming.HEADER_BYTES,
        "SCRATCH_BYTES": MEMORY_BYTES + nodes.incoming.HEADER_BYTES + transfer.disk.ALIGNED_BYTES,
    },
    nodes.reading: {"BLOCK_BYTES": 16 << 10, "LOADED_BYTES": 32 << 10},
    agent.spool: {"BUFFER_BYTES": 4 << 10, "ROOM_CHECK_BYTES": 128 << 10},
}


class Violation(AssertionError):
    """A promise is broken."""


class World:
    """One machine, its threads and what was drawn for it."""

    def __init__(
        self, seed: int, trace: Callable[[str], None] | None = None, *, machine: type[Machine] = Machine
    ) -> None:
        self.rng = random.Random(seed)
        self.strands = Strands(self.rng, self.rng.choice((0.0, 0.2, 0.6)))
        self.machine = machine(self.rng, self.strands.give_way, trace)
        self.strands.machine = self.machine
        self.whole_flushes = self.rng.random() < 0.7
        self.counts: list[Callable[[], None]] = []  # what runs in the background when its time comes

    def note(self, what: str) -> None:
        self.machine.note(what)


class _Flushers:
    """In place of the pool of threads: one after the other in any order; all are done, the first failure raised."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def map(self, action: Callable[[Any], None], items: Iterable[Any]) -> list[None]:
        each, failures = sorted(items), []  # they may come from a set, whose order no seed decides
        self._rng.shuffle(each)
        for item in each:
            try:
                action(item)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return []


class _Count:
    """In place of the census's thread: counts when the history lets it, at the latest when it is waited for."""

    def __init__(self, world: World, target: Callable[[], None]) -> None:
        self._world, self._target = world, target

    def start(self) -> None:
        self._world.counts.append(self._target)

    def join(self) -> None:
        if self._target in self._world.counts:
            self._world.counts.remove(self._target)


@contextmanager
def _open_lock(folder: Path) -> Iterator[None]:
    """As `agent.lock.open_lock`, which makes the folder; nobody else wants it here."""
    transfer.disk.make_folders(str(folder))
    yield


def _replaced(world: World) -> dict[ModuleType, dict[str, Any]]:
    machine, rng, strands = world.machine, world.rng, world.strands
    clock = SimpleNamespace(time=lambda: machine.now_s, time_ns=lambda: int(machine.now_s * 1e9))
    log = SimpleNamespace(**dict.fromkeys(("info", "warning", "error", "exception"), lambda *_, **__: None))
    flushing = SimpleNamespace(path=machine.path, getpid=lambda: 1, sync=lambda: machine.disk.flush_everything())
    return {
        transfer.disk: {
            "os": machine,
            "fcntl": machine.control,
            "_libc": machine.library,
            "CAN_FLUSH_FILE_SYSTEM": world.whole_flushes,
        },
        transfer.durable: {
            "os": flushing,
            "RLock": strands.lock_again,
            "_flushers": _Flushers(rng),
            "FEW": 0,  # all by way of the flushers
            "_serial": itertools.count(),
        },
        nodes.store: {"Lock": strands.lock, "log": log},
        nodes.room: {"Lock": strands.lock},
        nodes.census: {
            "Lock": strands.lock,
            "Thread": lambda target, **_: _Count(world, target),
            "AGAIN_S": 0.0,
            "log": log,
        },
        nodes.opening: {
            "time": clock,
            "fcntl": machine.control,
            "uuid": SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=rng.randbytes(16).hex())),
            "log": log,
        },
        nodes.incoming: {"_thread": local()},
        agent.spool: {
            "time": clock,
            "secrets": SimpleNamespace(token_hex=lambda length: rng.randbytes(length).hex()),
            "open_lock": _open_lock,
            "log": log,
        },
        trio.to_thread: {"run_sync": strands.run_sync},
        trio._core._run: {"_ALLOW_DETERMINISTIC_SCHEDULING": True, "_r": random.Random(rng.random())},
    }


@contextmanager
def open_world(world: World) -> Iterator[None]:
    """Put `world` under the production code until the context is left."""
    with replaced_by(_replaced(world), SIZES):
        transfer.disk.make_folders(HOME)
        world.machine.disk.flush_everything()
        yield


@contextmanager
def replaced_by(*tables: dict[ModuleType, dict[str, Any]]) -> Iterator[None]:
    """Put values in the place of others, by module and name, until the context is left."""
    kept: list[tuple[ModuleType, str, Any]] = []
    try:
        for replaced in tables:
            for module, values in replaced.items():
                for name, value in values.items():
                    kept.append((module, name, getattr(module, name)))
                    setattr(module, name, value)
        yield
    finally:
        for module, name, value in reversed(kept):
            setattr(module, name, value)
