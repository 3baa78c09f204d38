"""Has nodes put aside what is not needed: orphans, and copies beyond those that are wished.

The order is: every copy that stays is read again, byte by byte, on its node -> in one transaction the copy that goes is
looked at once more and named no more -> its node is asked to put it aside. A kill in between leaves a copy too many,
which the next stocktake finds; never one too few. Refuses to do: deleting for good (`gateway.trash`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection

from gateway.audit import Audit
from gateway.database import Database
from gateway.extraplan import Drop
from gateway.extras import put_extras_aside
from gateway.repairlink import RepairLinks
from gateway.runtime import running_s
from gateway.spares import orphans_of, put_orphans_aside
from gateway.verifying import Verifier, by_node
from gateway.watch import Watch
from transfer.errors import FascicleError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger
from transfer.protocol.messages import TRASH_OBJECTS_MAX, Reason

BY_ITSELF: Final = "gateway"
log = get_logger()


class Discards:
    """`keep_s`: how long what is put aside is kept at least; `grace_s`: how long an orphan has to be one."""

    def __init__(
        self,
        *,
        database: Database,
        links: RepairLinks,
        watch: Watch,
        audit: Audit,
        verifier: Verifier,
        keep_s: int,
        grace_s: int,
    ) -> None:
        self._database, self._links, self._watch, self._audit = database, links, watch, audit
        self._verifier = verifier
        self._keep_s = keep_s
        self.grace_s = grace_s

    async def extras(self, drops: Sequence[Drop], live: Mapping[str, Heartbeat]) -> int:
        """Put aside those of the copies whose keepers prove sound; return how many."""
        wanted = [(node_id, drop.object_id, drop.stored_bytes) for drop in drops for node_id in drop.keepers]
        sound = await self._verifier.verify(live, by_node(wanted))
        kept = [drop for drop in drops if all((node_id, drop.object_id) in sound for node_id in drop.keepers)]
        put = 0
        for node_id in sorted({drop.node_id for drop in kept} & live.keys()):
            mine = [drop for drop in kept if drop.node_id == node_id]
            for start in range(0, len(mine), TRASH_OBJECTS_MAX):
                some = mine[start : start + TRASH_OBJECTS_MAX]
                async with self._watch.telling:
                    going = await self._database.write(partial(self._settle_extras, drops=some))
                    put += await self._ask(live[node_id], [drop.object_id for drop in going], "extra", BY_ITSELF)
        return put

    async def orphans(self, node: Heartbeat, *, known: bool, by: str = BY_ITSELF) -> int:
        """Put aside the next orphans of a node whose grace time is over; return how many; 0: there are no more.

        `known`: only of those that the catalogue heard of.
        """
        ids = await self._database.read(
            lambda link: orphans_of(
                link, node.node_id, until_s=running_s(link) - self.grace_s, known=known, limit=TRASH_OBJECTS_MAX
            )
        )
        if not ids:
            return 0
        async with self._watch.telling:
            going = await self._database.write(
                lambda link: put_orphans_aside(
                    link, node.node_id, ids, until_s=running_s(link) - self.grace_s, known=known
                )
            )
            return await self._ask(node, going, "orphan", by)

    def _settle_extras(self, link: Connection, drops: list[Drop]) -> list[Drop]:
        return put_extras_aside(link, drops, back_since_s=running_s(link) - self.grace_s)

    async def _ask(self, node: Heartbeat, ids: Sequence[bytes], reason: Reason, by: str) -> int:
        """Have the node do it; what it does not answer is found by the next stocktake."""
        if not ids:
            return 0
        await self._audit.note("copies_put_aside", by, about=node.node_id, objects=len(ids), reason=reason)
        try:
            done = await self._links.discard(node, ids, reason, self._keep_s)
        except FascicleError as error:
            log.warning("copies_not_put_aside", node_id=node.node_id, code=error.code, reason=error.message)
            return 0
        codes = sorted({one.code for one in done.failed})
        log.info("copies_put_aside", node_id=node.node_id, objects=len(done.object_ids), why=reason, refused=codes)
        return len(done.object_ids)
