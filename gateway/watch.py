"""Notices what is lost: nodes whose heartbeats stop, disks that are replaced, copies that nodes say are gone.

Each node's heartbeats count the files in its quarantine; when that number changes the node is asked, and its signed
answer goes to the catalogue (`gateway.damage`). Silence alone never changes the catalogue: it only makes a node count
as gone, after its grace time and until it is heard again. Refuses to do: repair (`gateway.repairer`).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from gateway.damage import note_gone
from gateway.database import Database
from gateway.liveness import Nodes, State
from gateway.metrics import Metrics
from gateway.olddisks import OldDisks
from gateway.repairlink import RepairLinks
from transfer.errors import FascicleError, StorageError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger
from transfer.pages import Page

LOOK_S: Final = 0.5
AGE_SLACK_S: Final = 120  # of running time: nodes keep it every minute
TROUBLE_S: Final = 5.0  # before a node that did not answer is asked again
log = get_logger()


class Watch:
    """Looks at the nodes again and again; `on_change` is called when something may be short that was not.

    `on_old_disk` is called when a node can be asked whose disk is still to be compared (`gateway.olddisks`).
    """

    def __init__(
        self,
        *,
        nodes: Nodes,
        database: Database,
        links: RepairLinks,
        metrics: Metrics,
        grace_s: float,
        on_change: Callable[[], None],
        old_disks: OldDisks,
        on_old_disk: Callable[[], None],
    ) -> None:
        self._nodes, self._database, self._links = nodes, database, links
        self._metrics, self._grace_s, self._on_change = metrics, grace_s, on_change
        self._old_disks, self._on_old_disk = old_disks, on_old_disk
        self.gone: frozenset[str] = frozenset()
        self.telling = asyncio.Lock()  # held from a question about copies until the answer is in the catalogue
        self._states: dict[str, State] = {}
        self._disks: dict[str, str] = {}
        self._node_ids = nodes.node_ids
        self._told: dict[str, tuple[str, int]] = {}  # disk and number in quarantine of which everything is known
        self._ask_again_s: dict[str, float] = {}
        self._twins: frozenset[str] = frozenset()
        self._ages_s: dict[str, tuple[str, int]] = {}  # disk, and how long nodes ran on it

    def look_for_silence(self) -> None:
        """Take in which nodes are heard now."""
        now_s = time.monotonic()
        for node_id in sorted(self._nodes.node_ids):
            state = self._nodes.state(node_id, now_s)
            if self._states.get(node_id, "unknown") != state:
                log.info("node_state", node_id=node_id, state=state)
                if state == "live" and node_id in self._old_disks.node_ids:
                    self._on_old_disk()
            self._states[node_id] = state
        self._look_for_copied_disks(now_s)
        gone = frozenset(self._nodes.gone(now_s, self._grace_s))
        disks = {beat.node_id: beat.incarnation for beat in self._nodes.live(now_s)}
        is_other_disk = any(self._disks.get(node_id) != disk for node_id, disk in disks.items())
        self._disks |= disks
        if gone != self.gone:
            log.warning("nodes_gone", node_ids=sorted(gone), back=sorted(self.gone - gone))
        is_other_cluster = self._nodes.node_ids != self._node_ids  # who was revoked is neither gone nor counted
        self._node_ids = self._nodes.node_ids
        if gone != self.gone or is_other_disk or is_other_cluster:
            self.gone = gone
            self._on_change()

    def _look_for_copied_disks(self, now_s: float) -> None:
        """Say which nodes run twice, and which disks are what they were before, as those put back from a copy are."""
        twins = self._nodes.twins(now_s)
        if twins != self._twins:
            log.error("nodes_run_twice", node_ids=sorted(twins), no_more=sorted(self._twins - twins))
            self._twins = twins
        for beat in self._nodes.live(now_s):
            disk, age_s = self._ages_s.get(beat.node_id, ("", 0))
            if disk == beat.incarnation and beat.running_s + AGE_SLACK_S < age_s:
                log.error("disk_is_an_old_one", node_id=beat.node_id, running_s=beat.running_s, before_s=age_s)
                self._old_disks.notice(beat.node_id)
            self._ages_s[beat.node_id] = (beat.incarnation, beat.running_s)

    async def look_for_damage(self) -> None:
        """Ask the nodes that have something to tell."""
        now_s = time.monotonic()
        for beat in self._nodes.live(now_s):
            is_due = now_s >= self._ask_again_s.get(beat.node_id, 0.0)
            if is_due and self._told.get(beat.node_id) != (beat.incarnation, beat.quarantined):
                await self._ask(beat)

    async def ask_about(self, node: Heartbeat, object_ids: Sequence[bytes]) -> None:
        """Ask again about objects that the node did not find or list; what it signs now counts.

        The catalogue named these copies before this is asked, so one that only came meanwhile is not taken for gone.

        Raises:
            FascicleError: no answer, or the catalogue cannot be written.
        """
        left = sorted(object_ids)
        while left:
            async with self.telling:
                page = await self._links.list(node, predecessor(left[0]))
                told = [one for one in left if page.complete or one <= page.last]
                there = {receipt.object_id for receipt in page.receipts}.union(page.unreadable)
                await self._write(page, [one for one in told if one not in there])
            left = left[len(told) :]

    async def _ask(self, beat: Heartbeat) -> None:
        """Ask a node of which objects it has only damaged files."""
        try:
            if beat.quarantined:
                await self._take_quarantine(beat)
            self._told[beat.node_id] = (beat.incarnation, beat.quarantined)
        except FascicleError as error:
            self._ask_again_s[beat.node_id] = time.monotonic() + TROUBLE_S
            log.warning("damage_not_told", node_id=beat.node_id, code=error.code, reason=error.message)

    async def _take_quarantine(self, beat: Heartbeat) -> None:
        """Take what is known to be gone; what the disk does not tell of is asked again.

        Raises:
            FascicleError: no answer, or not of everything.
        """
        after, complete, untold = b"", False, 0
        while not complete:
            async with self.telling:
                page = await self._links.list(beat, after, quarantined=True)
                await self._write(page, page.damaged)
            after, complete, untold = page.last, page.complete, untold + len(page.unreadable)
        if untold:
            raise StorageError(
                f"{beat.node_id} cannot tell whether {untold} objects in its quarantine are there as well"
            )

    async def _write(self, page: Page, ids: list[bytes]) -> None:
        if not ids:
            return
        news = await self._database.write(lambda link: note_gone(link, page.node_id, page.incarnation, ids))
        if news:
            self._metrics.copies_damaged.inc(news)
            log.error("objects_damaged", node_id=page.node_id, objects=news)
            self._on_change()


def predecessor(object_id: bytes) -> bytes:
    """Return the id just below, so that a page above it begins with `object_id`."""
    return max(0, int.from_bytes(object_id, "big") - 1).to_bytes(len(object_id), "big")
