"""Upkeep: what is done when nothing is urgent, one thing after the other, at a background pace.

    turn, every `upkeep_every_s`
     +- running time, and transfers in which nothing happens     (gateway.runtime, gateway.spares)
     +- the trash: put back, deleted                             (gateway.trash)
     `- when all has been calm for `calm_s`:
         +- orphans, where they are few                          (gateway.discards)
         +- copies beyond those that are wished                  (gateway.extraplan)
         `- full nodes to emptier ones                           (gateway.balance)

Calm is: every node is heard, none is gone, nothing is short of replicas, no node runs twice or has an old disk. Repair
comes first, always. Refuses to do: repair.
"""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Final, Never

from gateway.audit import Audit
from gateway.balance import Balance
from gateway.database import Database
from gateway.discards import BY_ITSELF, Discards
from gateway.extraplan import choose
from gateway.extras import read_held
from gateway.fill import Fill, fill_of
from gateway.liveness import Nodes
from gateway.repairer import Repairer
from gateway.repairlink import RepairLinks
from gateway.repairplan import Job
from gateway.runtime import advance, running_s
from gateway.settings import GatewaySettings
from gateway.spares import abandon_idle, count_orphans
from gateway.trash import TrashKeeper
from gateway.verifying import Verifier
from transfer.errors import FascicleError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger

TRASH_EVERY_S: Final = 3600.0  # between looks where nothing is short
log = get_logger()


class Upkeep:
    """One object a gateway, beside its repairer."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        database: Database,
        nodes: Nodes,
        links: RepairLinks,
        repairer: Repairer,
        audit: Audit,
    ) -> None:
        self._settings, self._database, self._nodes, self._repairer = settings, database, nodes, repairer
        self._audit = audit
        pace = settings.upkeep_bytes_per_s
        verifier = Verifier(database, links, repairer.watch.telling, pace)
        self._verifier = verifier
        self.discards = Discards(
            database=database,
            links=links,
            watch=repairer.watch,
            audit=audit,
            verifier=verifier,
            keep_s=int(settings.trash_s),
            grace_s=int(settings.orphan_grace_s),
        )
        self.trash = TrashKeeper(
            database=database,
            links=links,
            watch=repairer.watch,
            audit=audit,
            verifier=verifier,
            counted=self.counted,
            relied_on=self.relied_on,
            live=self.live,
        )
        self.balance = Balance(
            database=database,
            discards=self.discards,
            copy=self._copy,
            is_calm=self._is_quiet,
            begin_spread=settings.balance_spread,
            bytes_per_s=pace,
        )
        self._turned_s = time.monotonic()
        self._calm_since_s: float | None = None
        self._trash_due_s = 0.0
        self.orphans_wait = False  # too many to go without an operator's word

    def live(self) -> Mapping[str, Heartbeat]:
        """Return the nodes that are heard."""
        return {beat.node_id: beat for beat in self._nodes.live(time.monotonic())}

    def counted(self) -> Mapping[str, Heartbeat]:
        """Return the nodes whose copies are relied on when another is to go."""
        relied_on = self.relied_on()
        return {node_id: beat for node_id, beat in self.live().items() if node_id in relied_on}

    def relied_on(self) -> frozenset[str]:
        """Return the nodes whose copies count for repair: those that are counted, or silent for a moment only."""
        out = self._repairer.draining.node_ids | self._repairer.watch.gone | self._repairer.old_disks.node_ids
        return self._nodes.node_ids - out - self._nodes.twins(time.monotonic())

    async def serve(self) -> Never:
        """Turn until cancelled."""
        while True:
            await asyncio.sleep(self._settings.upkeep_every_s)
            try:
                await self._turn()
            except FascicleError as error:
                log.warning("upkeep_waits", code=error.code, reason=error.message)
            except Exception as error:
                log.error("upkeep_failed", exc_info=error)

    async def put_orphans_aside(self, by: str) -> int:
        """Put the next orphans of each node aside, however many there are, at an operator's word; return how many."""
        return sum([await self.discards.orphans(node, known=False, by=by) for node in self.live().values()])

    async def _turn(self) -> None:
        now_s = time.monotonic()
        passed_s = int(now_s - self._turned_s)
        self._turned_s += passed_s  # what is left of a second counts next time
        await self._database.write(partial(advance, seconds=passed_s))
        await self._end_idle_transfers()
        if self._repairer.short or now_s >= self._trash_due_s:
            self._trash_due_s = now_s + min(TRASH_EVERY_S, self._settings.trash_s)
            await self.trash.look()
        if self._is_calm(now_s):
            await self._tidy()

    async def _end_idle_transfers(self) -> None:
        life_s = self._settings.transfer_idle_s
        ended = await self._database.write(lambda link: abandon_idle(link, running_s(link), life_s))
        for transfer_id in ended:
            await self._audit.note("transfer_abandoned", BY_ITSELF, transfer_id=transfer_id)

    async def _tidy(self) -> None:
        put = await self._put_few_orphans_aside() + await self._put_extras_aside()
        budget_bytes = int(self._settings.upkeep_bytes_per_s * max(60.0, self._settings.upkeep_every_s))
        moved = await self.balance.run(self._fills(), self.counted, budget_bytes)
        if put or moved:
            await self.trash.look()

    async def _put_few_orphans_aside(self) -> int:
        """Put aside old orphans that the catalogue heard of, where all of them, however new, are few."""
        count = await self._database.read(count_orphans)
        listed = self._repairer.stocktake.listed
        self.orphans_wait = count > self._settings.orphan_share_max * listed
        if self.orphans_wait:
            log.warning("orphans_wait", objects=count, of=listed)
        if not count or self.orphans_wait:
            return 0
        put = 0
        for node in self.counted().values():
            while (more := await self.discards.orphans(node, known=True)) and self._is_quiet():
                put += more
        return put

    async def _put_extras_aside(self) -> int:
        put = 0
        rest: bytes | None = b""
        while rest is not None and self._is_quiet():
            held, rest = await self._database.read(partial(read_held, after=rest))
            drops = choose(held, self._fills())
            if drops:
                put += await self.discards.extras(drops, self.counted())
        return put

    def _fills(self) -> list[Fill]:
        return [fill_of(beat, self.trash.bytes_of(node_id)) for node_id, beat in self.counted().items()]

    async def _copy(self, job: Job) -> int:
        await self._verifier.pace(job.bytes)
        return await self._repairer.copy(job, moved=True)

    def _is_quiet(self) -> bool:
        """Tell whether nothing is urgent at this moment."""
        now_s = time.monotonic()
        all_live = all(self._nodes.state(node_id, now_s) == "live" for node_id in self._nodes.node_ids)
        is_one_doubted = self._nodes.twins(now_s) or self._repairer.old_disks.node_ids
        return all_live and not self._repairer.short and not is_one_doubted

    def _is_calm(self, now_s: float) -> bool:
        """Tell whether it has been quiet for as long as is asked."""
        if not self._is_quiet():
            self._calm_since_s = None
            return False
        self._calm_since_s = now_s if self._calm_since_s is None else self._calm_since_s
        return now_s - self._calm_since_s >= self._settings.calm_s
