"""From kill -9 to serving again: the gateway with a large catalogue, a node with a full store, the agent with a spool.

Each is killed at a drawn moment of work and started at once, as a supervisor does; the clock stops when a client has a
real answer: `/health`, an object read from the node, a C-STORE answered with 0000. Wanted: p99 below 5 s, and the work
that was cut goes on by itself. Refuses to do: measuring the supervisor's own pause (0.1 s at first).
"""

import asyncio
import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from bench.rebuild import record_of, write_objects
from experiments.processes import processor_s
from gateway import rebuilding
from gateway.database import Database
from gateway.merging import Round
from tests.load.callers import Caller
from tests.load.honest import Done, Sender, Storer, Work, attempt, do_all
from tests.load.parts import Part, Parts, wait_for
from tests.load.results import Results, percentiles
from tests.load.verdict import judge_objects, judge_spool
from transfer import credentials
from transfer.addresses import Address
from transfer.client import GatewayClient
from transfer.errors import FascicleError
from transfer.flow import open_flow
from transfer.protocol.messages import Get, Object
from transfer.receipts import Receipt, ReceiptBatch

WANTED_S: Final = 5.0
NODE_OBJECTS_MAX: Final = 20_000
KILL_WITHIN_S: Final = 0.3
PAGE: Final = 1000


def run(results: Results, folder: Path, *, restarts: int, objects: int, spooled: int) -> None:
    """Restart each part `restarts` times."""
    parts = Parts(folder)
    results.figures["node_objects"] = min(objects, NODE_OBJECTS_MAX)
    write_objects([parts.data / "nodes/node-1"], results.figures["node_objects"], 1)
    asyncio.run(_fill_catalogue(parts, objects))
    try:
        parts.start(delivers=False)
        _restart_all(results, parts, restarts, spooled)
    finally:
        parts.stop()


def _restart_all(results: Results, parts: Parts, restarts: int, spooled: int) -> None:
    sender = Sender(parts, objects=8, size_bytes=64 << 10, flows=2)
    storer = Storer(parts.agent_port, instances=10, size_bytes=64 << 10)
    sent = trio.run(do_all, sender, 4, 2, f"{results.seed} sent")
    stored = trio.run(do_all, storer, max(1, spooled // 10), 4, f"{results.seed} stored")
    results.want(not sent.failures + stored.failures, f"filling failed: {(sent.failures + stored.failures)[:3]}")
    results.figures["spooled"] = len(stored.names)
    reading = _Reading(parts, min(sent.names))
    chance = random.Random(results.seed)
    for part, work, done, serves in (
        (parts.gateway, Caller(parts), Done(), parts.gateway_serves),
        (parts.node, sender, sent, reading.works),
        (parts.agent, storer, stored, partial(_stores, parts, stored, chance)),
    ):
        found = [_restart(part, serves, work, done, chance) for _ in range(restarts)]
        results.figures[part.name] = percentiles([took_s for took_s, _ in found])
        results.figures[f"{part.name}_processor_s"] = percentiles([used_s for _, used_s in found])
        results.want(results.figures[part.name]["p99"] < WANTED_S, f"{part.name}: {results.figures[part.name]}")
        if part is not parts.agent:  # a C-STORE that was cut is the device's to repeat
            results.want(not done.failures, f"{part.name}: {done.failures[:3]}")
    results.figures["objects_sent"] = len(sent.names)
    results.problems += judge_objects(parts, sent.names, deep=False)
    results.problems += judge_spool(parts, stored.names)


def _restart(
    part: Part, serves: Callable[[], bool], work: Work, done: Done, chance: random.Random
) -> tuple[float, float]:
    """Kill and start one part in the middle of work.

    Returns the seconds until it served, and those of a processor that it used for it: what a machine with nothing else
    to do would need, but for what it waits for.
    """
    seed = chance.random()
    working = threading.Thread(target=trio.run, args=(attempt, work, done, random.Random(seed)))
    working.start()
    time.sleep(chance.uniform(0, KILL_WITHIN_S))
    part.stop(signal.SIGKILL)
    part.start()
    took_s, used_s = wait_for(serves, part), processor_s([part.pid])
    working.join()
    return took_s, used_s


class _Reading:
    """Reads one object from the node, with a ticket that is asked for now and then."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._parts, self._name = parts, bytes.fromhex(name)
        self._ticket, self._until_s = b"", 0.0

    def works(self) -> bool:
        """Tell whether the node gives the object."""
        return trio.run(self._read)

    async def _read(self) -> bool:
        with contextlib.suppress(FascicleError):  # not yet
            if time.monotonic() > self._until_s:
                await self._ask()
            address = Address("127.0.0.1", self._parts.node_port)
            async with open_flow(address, self._parts.context, self._ticket, node_id="node-1") as flow:
                await flow.ask(Get(self._name))
                async for frame in flow.frames():
                    return isinstance(frame, Object)
        return False

    async def _ask(self) -> None:
        loaded = credentials.load(self._parts.credentials)
        async with GatewayClient(loaded, patience_s=10, context=self._parts.context) as client:
            go = await client.open_read(["get"])
        self._ticket, self._until_s = go.ticket, time.monotonic() + go.expires_in_s / 2


def _stores(parts: Parts, stored: Done, chance: random.Random) -> bool:
    """Tell whether one instance is taken by C-STORE."""
    done = Done()
    with contextlib.suppress(OSError):  # not yet
        trio.run(attempt, Storer(parts.agent_port, instances=1, size_bytes=1000), done, chance)
    stored.names |= done.names
    return bool(done.names)


async def _fill_catalogue(parts: Parts, objects: int) -> None:
    """Write what a rebuild would, of which the node has the first files."""
    path = parts.data / "gateway/catalogue.db"
    incarnation = (parts.data / "nodes/node-1/incarnation").read_text()
    with contextlib.closing(Database(path)) as database:
        for first in range(0, objects, PAGE):
            found = [_receipt(number) for number in range(first, min(objects, first + PAGE))]
            page = Round([ReceiptBatch("node-1", incarnation, "", found)], [], [])
            await database.write(partial(rebuilding.write_round, found=page, replicas=1))
        await database.write(partial(rebuilding.finish, node_ids=["node-1"], trail_lines=0))


def _receipt(number: int) -> Receipt:
    made = record_of(number)
    return Receipt(
        bytes.fromhex(made.object_id), made.size_bytes, made.stored_bytes, made.encoding, ["node-1"], made.identity
    )
