"""The UDP port where nodes' heartbeats arrive: bounded, verified, counted; a bad one is dropped without an answer.

A disk that a heartbeat names for the first time is written to the catalogue (`gateway.disks`). Refuses to do: judging
liveness (`gateway.liveness`).
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gateway.database import Database
from gateway.liveness import Nodes
from gateway.metrics import Metrics
from gateway.receiving import take_disk
from gateway.signatures import NodeKeys
from transfer import heartbeat
from transfer.errors import FascicleError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger


class Heartbeats(asyncio.DatagramProtocol):
    """Takes datagrams into `nodes`; `on_beat` is told of each that counts, `on_replaced` of disks, once written."""

    def __init__(
        self,
        nodes: Nodes,
        keys: NodeKeys,
        database: Database,
        metrics: Metrics,
        on_beat: Callable[[Heartbeat], None] = lambda _: None,
        *,
        on_replaced: Callable[[], None] = lambda: None,
    ) -> None:
        self._nodes = nodes
        self._keys = keys
        self._database = database
        self._on_beat, self._on_replaced = on_beat, on_replaced
        self._outcomes = metrics.heartbeats
        self._disks: dict[str, str] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def settle(self) -> None:
        """Wait until what is being written is written."""
        await asyncio.gather(*self._writing)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Verify one datagram."""
        self._outcomes.labels(self._take(data)).inc()

    def _take(self, data: bytes) -> str:
        try:
            beat = heartbeat.verify(data, self._keys.key(heartbeat.read_unverified(data).node_id))
        except FascicleError as error:
            return error.code
        if not self._nodes.record(beat, time.monotonic()):
            return "replayed"
        self._on_beat(beat)
        if self._disks.get(beat.node_id) != beat.incarnation:
            self._disks[beat.node_id] = beat.incarnation
            task = asyncio.get_running_loop().create_task(self._note(beat))
            self._writing.add(task)  # the loop itself keeps no hold of its tasks
            task.add_done_callback(self._writing.discard)
        return "taken"

    async def _note(self, beat: Heartbeat) -> None:
        try:
            note = partial(take_disk, node_id=beat.node_id, incarnation=beat.incarnation)
            if await self._database.write(note):
                self._on_replaced()
        except FascicleError as error:
            self._disks.pop(beat.node_id, None)  # the next heartbeat tries again
            get_logger().warning("disk_not_noted", node_id=beat.node_id, problem=error.code)
