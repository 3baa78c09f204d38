"""Evens out how full nodes are: copies go from full to empty, each made and proved before the old one goes.

Begins when the spread exceeds `begin_spread`, ends at half of that. A kill at any point leaves a copy too many, which
is found and put aside later. Refuses to do: choosing (`gateway.balanceplan`), working while anything is short of
replicas.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from gateway.balanceplan import Move, plan_moves
from gateway.database import Database
from gateway.discards import Discards
from gateway.extraplan import choose
from gateway.extras import held_of, read_held
from gateway.fill import Fill, spread
from gateway.repairplan import JOB_BYTES, JOB_OBJECTS, Job
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger

END_RATIO: Final = 0.5  # of the spread at which it began
log = get_logger()
Live = Mapping[str, Heartbeat]
CopyJob = Callable[[Job], Awaitable[int]]


class Balance:
    """`copy` has a job done and writes it; `is_calm` tells whether there is nothing more urgent."""

    def __init__(
        self,
        *,
        database: Database,
        discards: Discards,
        copy: CopyJob,
        is_calm: Callable[[], bool],
        begin_spread: float,
        bytes_per_s: float,
    ) -> None:
        self._database, self._discards, self._copy, self._is_calm = database, discards, copy, is_calm
        self._begin_spread = begin_spread
        self._job_bytes = int(min(JOB_BYTES, bytes_per_s * 4))
        self.is_moving = False

    async def run(self, fills: list[Fill], counted: Callable[[], Live], budget_bytes: int) -> int:
        """Move about so much where it is due; return how many copies were moved. `fills`: of the nodes `counted`."""
        differ = spread(fills)
        threshold = self._begin_spread * END_RATIO if self.is_moving else self._begin_spread
        self.is_moving = len(fills) > 1 and differ > threshold
        if not self.is_moving:
            return 0
        began_s, moved = time.monotonic(), 0
        rest: bytes | None = b""
        while rest is not None and budget_bytes > 0 and self._is_calm():
            held, rest = await self._database.read(partial(read_held, after=rest))
            least = self._begin_spread * END_RATIO
            planned = plan_moves(held, fills, least_spread=least, budget_bytes=budget_bytes)
            fills, budget_bytes = planned.fills, budget_bytes - sum(move.stored_bytes for move in planned.moves)
            for job in jobs(planned.moves, self._job_bytes):
                if self._is_calm():
                    moved += await self._move(job, counted(), fills)
        log.info("copies_moved", copies=moved, spread=round(differ, 4), seconds=round(time.monotonic() - began_s, 1))
        return moved

    async def _move(self, job: Job, live: Live, fills: list[Fill]) -> int:
        if not await self._copy(job):
            return 0
        held = await self._database.read(partial(held_of, ids=job.object_ids))
        there = [fill for fill in fills if fill.node_id in live]
        return await self._discards.extras(choose(held, there), live)


def jobs(moves: list[Move], job_bytes: int) -> list[Job]:
    """Return the moves as jobs of bounded length, each from one node to another."""
    pairs: dict[tuple[str, str], list[Move]] = {}
    for move in moves:
        pairs.setdefault((move.source, move.target), []).append(move)
    found: list[Job] = []
    for (source, target), each in sorted(pairs.items()):
        ids: list[bytes] = []
        size_bytes = 0
        for move in each:
            if ids and (len(ids) == JOB_OBJECTS or size_bytes + move.stored_bytes > job_bytes):
                found.append(Job(source, target, ids, size_bytes))
                ids, size_bytes = [], 0
            ids.append(move.object_id)
            size_bytes += move.stored_bytes
        found.append(Job(source, target, ids, size_bytes))
    return found
