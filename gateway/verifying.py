"""Reads copies again before others may go: each node is asked to re-read every byte, and only its signed word counts.

A word about another disk than the catalogue speaks of does not. Paced, as it reads as much as it lets go. Refuses to
do: deciding which copies matter.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gateway.database import Database
from gateway.disks import present_disks
from gateway.repairlink import RepairLinks
from transfer.errors import FascicleError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger

BATCH_OBJECTS: Final = 64
BATCH_BYTES: Final = 64 << 20
log = get_logger()
Copies = set[tuple[str, bytes]]  # node id, object id
Wanted = Mapping[str, Mapping[bytes, int]]  # by node: sizes as stored by object id


class Verifier:
    """Re-reads at most `bytes_per_s`; `telling` is held while a node is asked (`gateway.watch`)."""

    def __init__(self, database: Database, links: RepairLinks, telling: asyncio.Lock, bytes_per_s: float) -> None:
        self._database, self._links, self._telling = database, links, telling
        self._bytes_per_s = bytes_per_s
        self._due_s = 0.0

    async def verify(self, live: Mapping[str, Heartbeat], wanted: Wanted) -> Copies:
        """Return the copies that are sound on the disks that the catalogue speaks of; what is not answered is not."""
        disks = await self._database.read(present_disks)
        found: Copies = set()
        for node_id in sorted(wanted.keys() & live.keys()):
            for some, size_bytes in batches(wanted[node_id]):
                await self.pace(size_bytes)
                try:
                    async with self._telling:
                        batch = await self._links.verify(live[node_id], some, size_bytes)
                except FascicleError as error:
                    log.warning("copies_not_verified", node_id=node_id, code=error.code, reason=error.message)
                    break
                if batch.incarnation == disks.get(node_id):
                    found |= {(node_id, receipt.object_id) for receipt in batch.receipts}
        return found

    async def pace(self, size_bytes: int) -> None:
        """Wait until so much more may be read."""
        now_s = time.monotonic()
        await asyncio.sleep(max(0.0, self._due_s - now_s))
        self._due_s = max(self._due_s, now_s) + size_bytes / self._bytes_per_s


def batches(sizes: Mapping[bytes, int]) -> Iterator[tuple[list[bytes], int]]:
    """Cut into requests of bounded length: ids, and their bytes."""
    some: list[bytes] = []
    size_bytes = 0
    for object_id in sorted(sizes):
        if some and (len(some) == BATCH_OBJECTS or size_bytes + sizes[object_id] > BATCH_BYTES):
            yield some, size_bytes
            some, size_bytes = [], 0
        some.append(object_id)
        size_bytes += sizes[object_id]
    if some:
        yield some, size_bytes


def by_node(copies: Sequence[tuple[str, bytes, int]]) -> dict[str, dict[bytes, int]]:
    """Return (node id, object id, size) as `Verifier.verify` takes them."""
    found: dict[str, dict[bytes, int]] = {}
    for node_id, object_id, size_bytes in copies:
        found.setdefault(node_id, {})[object_id] = size_bytes
    return found
