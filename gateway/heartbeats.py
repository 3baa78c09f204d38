"""The UDP port where nodes' heartbeats arrive: bounded, verified, counted; a bad one is dropped without an answer.

Refuses to do: judging what a heartbeat means (`gateway.liveness`).
"""

import asyncio
import time
from typing import Any

from gateway.liveness import Nodes
from gateway.metrics import Metrics
from gateway.signatures import NodeKeys
from transfer import heartbeat
from transfer.errors import FascicleError


class Heartbeats(asyncio.DatagramProtocol):
    """Takes datagrams into `nodes`."""

    def __init__(self, nodes: Nodes, keys: NodeKeys, metrics: Metrics) -> None:
        self._nodes = nodes
        self._keys = keys
        self._outcomes = metrics.heartbeats

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Verify one datagram."""
        self._outcomes.labels(self._take(data)).inc()

    def _take(self, data: bytes) -> str:
        try:
            beat = heartbeat.verify(data, self._keys.key(heartbeat.read_unverified(data).node_id))
        except FascicleError as error:
            return error.code
        return "taken" if self._nodes.record(beat, time.monotonic()) else "replayed"
