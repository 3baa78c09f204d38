"""What nodes put aside, looked after: put back where it is needed again, deleted when its time has passed.

A node deletes nothing by itself. It is told to, for each object anew, after the catalogue was asked and as many copies
as are wished were read again on other nodes; and it does so only when its own time for it has passed, too. Refuses to
do: putting aside (`gateway.discards`), deciding (`gateway.trashplan`).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from gateway.asides import take_back, were_put_aside
from gateway.audit import Audit
from gateway.damage import note_found
from gateway.database import Database
from gateway.extras import held_of
from gateway.repairlink import RepairLinks
from gateway.runtime import running_s
from gateway.schema import object_
from gateway.spares import begin_anew, is_orphan
from gateway.trashplan import Facts, Verdict, judge
from gateway.verifying import Verifier, by_node
from gateway.watch import Watch
from transfer.errors import FascicleError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger
from transfer.protocol.messages import TRASH_OBJECTS_MAX, Discarded
from transfer.receipts import ReceiptBatch

PAUSE_S: Final = 0.2  # between pages
SIZE_UNKNOWN_BYTES: Final = 64 << 20  # of what is asked about without its size: patience for so much
log = get_logger()
Live = Mapping[str, Heartbeat]


class TrashKeeper:
    """`live`: the nodes that are heard; `counted`: those of them whose copies count; `relied_on`: also silent ones."""

    def __init__(
        self,
        *,
        database: Database,
        links: RepairLinks,
        watch: Watch,
        audit: Audit,
        verifier: Verifier,
        counted: Callable[[], Live],
        relied_on: Callable[[], AbstractSet[str]],
        live: Callable[[], Live],
    ) -> None:
        self._database, self._links, self._watch, self._audit = database, links, watch, audit
        self._verifier, self._counted, self._relied_on, self._live = verifier, counted, relied_on, live
        self._sums: dict[str, tuple[int, int]] = {}

    @property
    def sums(self) -> tuple[int, int]:
        """How many copies are put aside, and their bytes, by the last look at each node."""
        return sum(count for count, _ in self._sums.values()), sum(size for _, size in self._sums.values())

    def bytes_of(self, node_id: str) -> int:
        """Return the bytes that a node put aside, by the last look."""
        return self._sums.get(node_id, (0, 0))[1]

    async def look(self) -> None:
        """Go through what every live node put aside, once; one that does not answer is looked at the next time."""
        for node in self._live().values():
            try:
                await self._look(node)
            except FascicleError as error:
                log.warning("trash_not_looked_at", node_id=node.node_id, code=error.code, reason=error.message)

    async def _look(self, node: Heartbeat) -> None:
        after, complete, count, size_bytes = b"", False, 0, 0
        while not complete:
            page = await self.page(node, after)
            settled = await self._settle(node, page.entries, by="gateway", at_once=False)
            left = [entry for entry in page.entries if entry.object_id not in settled]
            count, size_bytes = count + len(left), size_bytes + _sum(left)
            complete, after = page.complete, page.entries[-1].object_id if page.entries else after
            await asyncio.sleep(PAUSE_S if page.entries else 0)
        self._sums[node.node_id] = (count, size_bytes)

    async def page(self, node: Heartbeat, after: bytes) -> "Page":
        """Return the next of what a node put aside.

        Raises:
            FascicleError: it does not answer.
        """
        async with self._watch.telling:
            found = await self._links.trash(node, after)
        return Page(found.entries, found.complete or not found.entries)

    async def undo(self, node: Heartbeat, ids: Sequence[bytes], by: str) -> int:
        """Have objects put back, at an operator's word; return how many are in their places now.

        Raises:
            FascicleError: the node or the catalogue does not answer.
        """
        return await self._put_back(node, ids, SIZE_UNKNOWN_BYTES * 4, by, anew=True)

    async def purge(self, node: Heartbeat, ids: Sequence[bytes], by: str) -> int:
        """Have objects deleted now, at an operator's word, where none is needed; return how many.

        Raises:
            FascicleError: the node or the catalogue does not answer.
        """
        wanted, deleted = set(ids), 0
        after, complete = _below(min(wanted)), False
        while not complete and after < max(wanted):
            page = await self.page(node, after)
            entries = [entry for entry in page.entries if entry.object_id in wanted]
            deleted += len(await self._settle(node, entries, by=by, at_once=True))
            complete, after = page.complete, page.entries[-1].object_id if page.entries else after
        return deleted

    async def recall(self, doubts: Mapping[str, Sequence[bytes]]) -> None:
        """Ask nodes about copies that a receipt names and that were put aside: they are put back, if they are there."""
        live = self._live()
        for node_id in sorted(doubts.keys() & live.keys()):
            ids = doubts[node_id]
            try:
                for start in range(0, len(ids), TRASH_OBJECTS_MAX):
                    some = ids[start : start + TRASH_OBJECTS_MAX]
                    await self._put_back(live[node_id], some, SIZE_UNKNOWN_BYTES, "gateway")
            except FascicleError as error:
                log.warning("copies_not_recalled", node_id=node_id, code=error.code, reason=error.message)

    async def _settle(self, node: Heartbeat, entries: list[Discarded], *, by: str, at_once: bool) -> set[bytes]:
        """Do with these what is to be done; return those that were deleted."""
        if not entries:
            return set()
        facts = await self._database.read(partial(_facts, node_id=node.node_id, entries=entries))
        verdict = judge(entries, facts, self._relied_on(), self._counted().keys(), at_once=at_once)
        if verdict.restore:
            await self._put_back(node, _ids(verdict.restore), _sum(verdict.restore), by)
        going = [*verdict.purge, *await self._proved(verdict, facts)]
        if not going:
            return set()
        await self._audit.note("copies_deleted", by, about=node.node_id, objects=len(going), bytes=_sum(going))
        async with self._watch.telling:
            done = await self._links.purge(node, _ids(going), at_once=at_once)
        log.info("copies_deleted", node_id=node.node_id, objects=len(done.object_ids), bytes=_sum(going))
        return set(done.object_ids)

    async def _proved(self, verdict: Verdict, facts: Facts) -> list[Discarded]:
        """Return what may go because as many copies as are wished were read again just now."""
        counted = self._counted()
        held = [facts.shown[entry.object_id] for entry in verdict.verify]
        wanted = [(node_id, one.object_id, one.stored_bytes) for one in held for node_id in one.holders]
        sound = await self._verifier.verify(counted, by_node(wanted))
        number = {one.object_id: sum((node_id, one.object_id) in sound for node_id in one.holders) for one in held}
        return [entry for entry in verdict.verify if number[entry.object_id] >= facts.shown[entry.object_id].wished]

    async def _put_back(
        self, node: Heartbeat, ids: Sequence[bytes], size_bytes: int, by: str, *, anew: bool = False
    ) -> int:
        async with self._watch.telling:
            batch = await self._links.restore(node, ids, size_bytes)
            if batch.receipts:
                await self._database.write(partial(_note_back, batch=batch, anew=anew))
        back = len(batch.receipts)
        await self._audit.note("copies_put_back", by, about=node.node_id, objects=back, asked=len(ids))
        log.info("copies_put_back", node_id=node.node_id, objects=back, asked=len(ids))
        return back


class Page(msgspec.Struct, frozen=True):
    """A page of what one node put aside."""

    entries: list[Discarded]
    complete: bool


def _facts(connection: Connection, node_id: str, entries: Sequence[Discarded]) -> Facts:
    ids = _ids(entries)
    return Facts(
        shown={one.object_id: one for one in held_of(connection, ids)},
        nobodys=is_orphan(connection, ids),
        put_aside=were_put_aside(connection, node_id, ids),
    )


def _note_back(connection: Connection, batch: ReceiptBatch, *, anew: bool) -> None:
    """Name these copies again; of objects that the catalogue never heard of, only that they are not put aside.

    Else an old catalogue would come to know, through the undo, of what it then takes for orphans by its own account.
    """
    ids = [receipt.object_id for receipt in batch.receipts]
    known = set(connection.execute(select(object_.c.object_id).where(object_.c.object_id.in_(ids))).scalars())
    named = [receipt for receipt in batch.receipts if receipt.object_id in known]
    take_back(connection, [batch])
    note_found(connection, [ReceiptBatch(batch.node_id, batch.incarnation, batch.transfer_id, named)])
    if anew:
        begin_anew(connection, batch, running_s(connection))


def _ids(entries: Sequence[Discarded]) -> list[bytes]:
    return [entry.object_id for entry in entries]


def _sum(entries: Sequence[Discarded]) -> int:
    return sum(entry.stored_bytes for entry in entries)


def _below(object_id: bytes) -> bytes:
    return max(0, int.from_bytes(object_id, "big") - 1).to_bytes(len(object_id), "big")
