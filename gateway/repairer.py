"""Repair: whatever has fewer replicas than wished gets more, from nodes that hold it to nodes that do not.

    serve
     +- silence      nodes that are no longer heard, or are again       (gateway.watch)
     +- damage       what nodes tell of copies that are gone            (gateway.watch)
     +- old disks    written, when they are noticed                     (gateway.olddisks)
     +- stocktake      what nodes list against the catalogue, now and then   (gateway.stocktake)
     `- passes       through all objects of which replicas are wished, when something changed or is short

What is short is read from the catalogue each time, so a gateway that was killed goes on where it was, and a node that
comes back ends what was done on its account. Copies are paced. Refuses to do: deleting anything.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Never, TypeVar

import msgspec

from gateway.damage import forget_made_good, note_copied, note_found, open_damage
from gateway.database import Database
from gateway.draining import Draining, Left, count_claims
from gateway.liveness import Nodes, candidate
from gateway.metrics import Metrics
from gateway.nodelink import CHECK_IDS_MAX
from gateway.olddisks import OldDisks
from gateway.placement import Candidate
from gateway.repairlink import RepairLinks
from gateway.repairplan import JOB_BYTES, Job, plan
from gateway.settings import GatewaySettings
from gateway.shortages import read_shortages
from gateway.stocktake import Stocktake
from gateway.tickets import Tickets
from gateway.watch import LOOK_S, Watch
from transfer.errors import FascicleError, UnreachableError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger
from transfer.protocol.messages import Refused

FIRST_STOCKTAKE_S: Final = 300.0  # after the start, when nodes have been heard
UNLISTED_S: Final = 3600.0  # before the next stocktake where folders could not be listed
T = TypeVar("T")
SETTLE_S: Final = 1.0  # after a change, so that what changes together is looked at together
IDLE_S: Final = 3600.0  # between passes where nothing changed and nothing was short
AVOID_S: Final = 60.0  # a target that took nothing
TARGET_CODES: Final = frozenset({"busy", "full", "unreachable"})
DAMAGE_MAX: Final = 10_000  # looked at again in one pass
log = get_logger()


class Repairer:
    """One object a gateway; `short` and `waiting` are by the last pass."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        database: Database,
        nodes: Nodes,
        links: RepairLinks,
        tickets: Tickets,
        metrics: Metrics,
        draining: Draining,
    ) -> None:
        self._settings, self._database, self._nodes, self._links = settings, database, nodes, links
        self._tickets, self._metrics = tickets, metrics
        self.draining = draining
        self._job_bytes = min(JOB_BYTES, settings.repair_bytes_per_s)  # a second's worth at most
        self._changed = asyncio.Event()
        self.old_disks = OldDisks(database, nodes)
        self._old_disk = asyncio.Event()  # one that a stocktake should look at now
        self._avoided_s: dict[str, float] = {}  # targets, until when
        self._due_s = 0.0
        self._turn = 0
        self._damaged = False  # copies that a node may have again, such as one put back by an operator
        self.short = 0
        self.waiting = 0
        self.watch = Watch(
            nodes=nodes,
            database=database,
            links=links,
            metrics=metrics,
            grace_s=settings.replica_grace_s,
            on_change=self._changed.set,
            old_disks=self.old_disks,
            on_old_disk=self._old_disk.set,
        )
        self.stocktake = Stocktake(
            database, nodes, links, self.watch.telling, self.watch.ask_about, old_disks=self.old_disks
        )
        draining.on_change = self._changed.set

    def lasting(self) -> frozenset[str]:
        """Return the nodes on whose copies a new promise may rest: not gone, not leaving, not with an old disk."""
        return self._nodes.node_ids - self.watch.gone - self.draining.leaving - self.old_disks.node_ids

    def look_soon(self) -> None:
        """Have a pass begin, since something is short that was not."""
        self._changed.set()

    async def serve(self) -> None:
        """Repair until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._serve_silence())
            tasks.create_task(self._serve_looks(self.watch.look_for_damage))
            tasks.create_task(self._serve_looks(self._write_old_disks))
            tasks.create_task(self._serve_passes())
            tasks.create_task(self._serve_stocktakes())

    async def _serve_silence(self) -> Never:
        while True:
            self.watch.look_for_silence()
            await asyncio.sleep(LOOK_S)

    async def _serve_looks(self, look: Callable[[], Awaitable[None]]) -> Never:
        while True:
            try:
                await look()
            except FascicleError as error:
                log.warning("watch_waits", code=error.code, reason=error.message)
            except Exception as error:
                log.error("watch_failed", exc_info=error)
            await asyncio.sleep(LOOK_S)

    async def _write_old_disks(self) -> None:
        if await self.old_disks.write():  # a stocktake that begins before does not see all that is still to come in
            self._old_disk.set()

    async def _serve_stocktakes(self) -> Never:
        rest_s = min(FIRST_STOCKTAKE_S, self._settings.stocktake_every_s)
        while True:
            with contextlib.suppress(TimeoutError):  # it is time
                async with asyncio.timeout(rest_s):
                    await self._old_disk.wait()
            rest_s = self._settings.stocktake_every_s
            if self._old_disk.is_set():  # this one begins whoever is heard, so that another is to follow
                rest_s = min(FIRST_STOCKTAKE_S, rest_s)
            self._old_disk.clear()
            try:
                await self.stocktake.run()
            except FascicleError as error:
                rest_s = min(FIRST_STOCKTAKE_S, rest_s)
                log.warning("stocktake_waits", code=error.code, reason=error.message)
            except Exception as error:
                log.error("stocktake_failed", exc_info=error)
            unlisted = self.stocktake.unlisted
            self._metrics.folders_unlisted.set(sum(unlisted.values()))
            rest_s = min(UNLISTED_S, rest_s) if unlisted else rest_s

    async def _serve_passes(self) -> Never:
        while True:
            self._changed.clear()
            try:
                await self._pass()
            except FascicleError as error:
                log.warning("repair_waits", code=error.code, reason=error.message)
            except Exception as error:
                log.error("repair_failed", exc_info=error)
            with contextlib.suppress(TimeoutError):  # it is time
                busy = self.short or self._damaged or self.draining.is_unsettled
                async with asyncio.timeout(self._settings.repair_every_s if busy else IDLE_S):
                    await self._changed.wait()
            await asyncio.sleep(SETTLE_S)

    async def _pass(self) -> None:
        """Go through everything once; ends early when a node comes back or another is gone."""
        await self._look_again_at_damage()
        began_s = time.monotonic()
        self._turn += 1
        gone, short, waiting, copied = self.watch.gone, 0, 0, 0
        draining = self.draining.node_ids
        counted = self._nodes.node_ids - gone - draining
        # First, and behind what the writer does: what is no claim any more is committed then, and found to be short.
        count = partial(count_claims, node_ids=sorted(draining))
        claims = await self._database.write(count) if draining else {}
        read = partial(read_shortages, counted=counted, every=bool(draining))
        left = dict.fromkeys(sorted(draining), Left())
        after: bytes | None = b""
        while after is not None:
            found, after = await self._database.read(partial(read, after=after))
            left = {node_id: left[node_id].plus(node_id, found) for node_id in left}
            planned = plan(found, self._candidates(), draining=draining, job_bytes=self._job_bytes, turn=self._turn)
            short, waiting = short + len(found), waiting + planned.waiting
            self.short, self.waiting = max(self.short, short - copied), waiting
            for job in planned.jobs:
                if self.watch.gone != gone:
                    self._changed.set()
                    return
                copied += await self.copy(job)
        self.draining.note({key: left[key].claimed(claims[key]) for key in left}, began_s)
        self.short, self.waiting = max(waiting, short - copied), waiting
        self._metrics.objects_short.set(self.short)
        if short:
            log.info("repair_pass_done", short=short, copied=copied, waiting=waiting)

    def _candidates(self) -> list[Candidate]:
        """Return the live nodes; one that took nothing of late is without room for now."""
        live = [candidate(node) for node in self._nodes.live(time.monotonic())]
        return [
            msgspec.structs.replace(node, free_bytes=0) if self._is_avoided(node.node_id) else node for node in live
        ]

    async def copy(self, job: Job, *, moved: bool = False) -> int:
        """Have one job done; return how many copies were made. `moved`: for others to go, not to repair anything."""
        live = {node.node_id: node for node in self._nodes.live(time.monotonic())}
        if job.source not in live or job.target not in live or self._is_avoided(job.target):
            return 0
        source = live[job.source]
        await self._pace(job.bytes)
        ticket = self._tickets.for_copy(source, live[job.target])
        async with self.watch.telling:
            try:
                copies = await self._while_live(
                    [job.source, job.target], self._links.copy(source, job.object_ids, ticket, job.bytes)
                )
            except FascicleError as error:
                log.warning("copy_failed", source=job.source, target=job.target, code=error.code, reason=error.message)
                return 0
            disk = live[job.target].incarnation
            note = partial(note_copied, batch=copies.batch, target=job.target, disk=disk, moved=moved)
            news = await self._database.write(note)
        self._metrics.copies_repaired.inc(0 if moved else news)
        refused = sorted({one.code for one in copies.failed})
        names = {"source": job.source, "target": job.target}
        log.info("objects_copied", **names, objects=news, bytes=job.bytes, refused=refused)
        await self._take_failures(source, job.target, copies.failed)
        return news

    async def _while_live(self, node_ids: list[str], work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` as long as these nodes are heard: what hangs on a silent one would hold up all repairs."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=LOOK_S)
                now_s = time.monotonic()
                silent = [node_id for node_id in node_ids if self._nodes.state(node_id, now_s) != "live"]
                if silent and not task.done():
                    raise UnreachableError(f"{silent[0]} fell silent")
            return task.result()
        finally:
            task.cancel()

    async def _take_failures(self, source: Heartbeat, target: str, failed: list[Refused]) -> None:
        """Believe a source that it lacks something only when it signs that; leave a target alone that takes nothing."""
        if {one.code for one in failed} & TARGET_CODES:
            self._avoided_s[target] = time.monotonic() + AVOID_S
        missing = [one.object_id for one in failed if one.code == "not_stored"]
        try:
            await self.watch.ask_about(source, missing)
        except FascicleError as error:
            log.warning("damage_not_told", node_id=source.node_id, code=error.code, reason=error.message)

    def _is_avoided(self, node_id: str) -> bool:
        return time.monotonic() < self._avoided_s.get(node_id, 0.0)

    async def _pace(self, size_bytes: int) -> None:
        now_s = time.monotonic()
        await asyncio.sleep(max(0.0, self._due_s - now_s))
        self._due_s = max(self._due_s, now_s) + size_bytes / self._settings.repair_bytes_per_s

    async def _look_again_at_damage(self) -> None:
        """Forget what was made good; ask the nodes that lost copies whether they have them after all."""
        read = partial(open_damage, limit=DAMAGE_MAX)
        if known := await self._database.read(read):
            await self._database.write(forget_made_good)
            known = await self._database.read(read)
        self._damaged = bool(known)
        live = {node.node_id: node for node in self._nodes.live(time.monotonic())}
        for node_id in known.keys() & live.keys():
            try:
                await self._check(live[node_id], known[node_id])
            except FascicleError as error:
                log.warning("damage_not_checked", node_id=node_id, code=error.code, reason=error.message)

    async def _check(self, node: Heartbeat, ids: Sequence[bytes]) -> None:
        for start in range(0, len(ids), CHECK_IDS_MAX):
            async with self.watch.telling:
                batch = await self._links.check(node, ids[start : start + CHECK_IDS_MAX])
                if batch.receipts:
                    await self._database.write(partial(note_found, batches=[batch]))
