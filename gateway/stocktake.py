"""The stocktake: each node's own list against the catalogue, slowly, so that neither says what the other does not.

A copy that the catalogue names and the node does not list is asked for once more, and gone when the node signs that. A
copy that the node lists of an object that the catalogue has counts from now on. What the catalogue does not show (never
committed, or not known at all) is an orphan: counted, said and noted with its beginning, and left alone, because it may
be an image that somebody is sending. Folders that a node cannot list are passed over and told of: their copies are
believed as before. Disks that were put back come first, and count again when nothing was passed over
(`gateway.olddisks`). Refuses to do: putting anything aside (`gateway.discards`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from gateway.damage import note_found
from gateway.database import Database
from gateway.liveness import Nodes
from gateway.merging import END
from gateway.nodelink import CHECK_IDS_MAX
from gateway.olddisks import OldDisks
from gateway.repairlink import RepairLinks
from gateway.runtime import running_s
from gateway.schema import object_, replica
from gateway.spares import note_orphans
from gateway.unlisted import Unlisted
from transfer.errors import FascicleError, StorageError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger
from transfer.pages import Page

PAUSE_S: Final = 0.2  # between pages: a million objects of one node take a quarter of an hour
log = get_logger()


class Difference(msgspec.Struct, frozen=True):
    """What a page and the catalogue do not agree about."""

    missing: list[bytes]  # named by the catalogue, not listed
    unnamed: list[bytes]  # listed, of objects that the catalogue shows, but not named there
    orphans: list[bytes]  # listed, not shown


class Orphans(msgspec.Struct, frozen=True):
    """What nodes hold and the catalogue does not show."""

    objects: int = 0
    bytes: int = 0


def compare(connection: Connection, page: Page) -> Difference:
    """Compare a page with what the catalogue says of its stretch and its disk."""
    end = END if page.complete else page.last
    stretch = (replica.c.object_id > page.after, replica.c.object_id <= end)
    mine = (replica.c.node_id == page.node_id, replica.c.incarnation == page.incarnation, *stretch)
    named = set(connection.execute(select(replica.c.object_id).where(*mine)).scalars())
    listed = [receipt.object_id for receipt in page.receipts]
    visible = select(object_.c.object_id).where(object_.c.object_id.in_(listed), object_.c.visible.is_(True))
    shown = set(connection.execute(visible).scalars())
    return Difference(
        missing=sorted(named.difference(listed, page.unreadable)),
        unnamed=[one for one in listed if one in shown and one not in named],
        orphans=[one for one in listed if one not in shown],
    )


class Stocktake:
    """Goes through the live nodes; `ask_about` is given the copies that a node did not list."""

    def __init__(
        self,
        database: Database,
        nodes: Nodes,
        links: RepairLinks,
        telling: asyncio.Lock,
        ask_about: Callable[[Heartbeat, Sequence[bytes]], Awaitable[None]],
        *,
        old_disks: OldDisks,
    ) -> None:
        self._database, self._nodes, self._links = database, nodes, links
        self._telling, self._ask_about, self._old_disks = telling, ask_about, old_disks
        self._orphans: dict[str, Orphans] = {}
        self._listed: dict[str, int] = {}
        self._unlisted: dict[str, int] = {}

    @property
    def orphans(self) -> Orphans:
        """What the last look at each node found."""
        found = self._orphans.values()
        return Orphans(sum(each.objects for each in found), sum(each.bytes for each in found))

    @property
    def listed(self) -> int:
        """How many copies the last look at each node found."""
        return sum(self._listed.values())

    @property
    def unlisted(self) -> dict[str, int]:
        """How many folders a node could not list at the last look; of such nodes alone."""
        there = self._nodes.node_ids
        return {node_id: count for node_id, count in self._unlisted.items() if count and node_id in there}

    async def run(self) -> None:
        """Look at every live node once; one that does not answer keeps none of the others back.

        Raises:
            FascicleError: a node, the last of those named in the log, or the catalogue does not answer.
        """
        trouble: FascicleError | None = None
        live = self._nodes.live(time.monotonic())
        for beat in sorted(live, key=lambda beat: beat.node_id not in self._old_disks.node_ids):
            try:
                await self._look(beat)
            except FascicleError as error:
                log.warning("node_not_taken_stock", node_id=beat.node_id, code=error.code, reason=error.message)
                trouble = error
        if trouble is not None:
            raise trouble

    async def _look(self, beat: Heartbeat) -> None:
        passed, notice = Unlisted(), self._old_disks.written(beat.node_id)
        try:
            await self._go_through(beat, passed)
        finally:
            self._unlisted[beat.node_id] = len(passed.folders)
            if passed.folders:
                log.error(
                    "folders_not_listed", node_id=beat.node_id, count=len(passed.folders), first=passed.folders[0]
                )
        if not passed.folders:
            await self._old_disks.compared(beat.node_id, notice)

    async def _go_through(self, beat: Heartbeat, passed: Unlisted) -> None:
        after, complete = b"", False
        missing = unnamed = orphans = orphan_bytes = listed = 0
        while not complete:
            try:
                async with self._telling:  # or it would wait behind a long copy on the same flow, and give up
                    page = await self._links.list(beat, after)
            except StorageError as error:
                after = passed.pass_over(after, error)
                await asyncio.sleep(PAUSE_S)
                continue
            found = await self._database.read(lambda connection, page=page: compare(connection, page))  # type: ignore[misc]  # mypy takes no default of a lambda
            await self._settle(beat, page, found)
            orphan_bytes += sum(one.stored_bytes for one in page.receipts if one.object_id in set(found.orphans))
            missing, unnamed = missing + len(found.missing), unnamed + len(found.unnamed)
            orphans, listed = orphans + len(found.orphans), listed + len(page.receipts)
            after, complete = page.last, page.complete
            await asyncio.sleep(PAUSE_S)
        self._orphans[beat.node_id] = Orphans(orphans, orphan_bytes)
        self._listed[beat.node_id] = listed
        log.info("node_taken_stock", node_id=beat.node_id, missing=missing, unnamed=unnamed, orphans=orphans)

    async def _settle(self, beat: Heartbeat, page: Page, found: Difference) -> None:
        await self._ask_about(beat, sorted({*found.missing, *page.damaged}))
        await self._database.write(lambda link: note_orphans(link, page, found.orphans, running_s(link)))
        for start in range(0, len(found.unnamed), CHECK_IDS_MAX):
            async with self._telling:  # asked anew: it may have been put aside since the page was made
                batch = await self._links.check(beat, found.unnamed[start : start + CHECK_IDS_MAX])
                await self._database.write(partial(note_found, batches=[batch]))
