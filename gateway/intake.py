"""Receipts as parties pass them on: verified, and where what they say may be of before, the nodes themselves are asked.

A receipt may lie at a sender for long. What it names and was put aside since is called back (`gateway.trash`); for what
may have been on a disk of before (`gateway.disks`) its node is asked, and signs anew or does not. An answer, too, may
be overtaken by a disk that is put back. Refuses to do: writing, judging who may pass on what.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.asides import doubted
from gateway.database import Database
from gateway.disks import on_younger_disks
from gateway.liveness import Nodes
from gateway.nodelink import NodeLinks
from gateway.olddisks import OldDisks
from gateway.signatures import NodeKeys
from transfer.api import SignedReceipts
from transfer.heartbeat import Heartbeat
from transfer.receipts import ReceiptBatch

Recall = Callable[[Mapping[str, Sequence[bytes]]], Awaitable[None]]


class Answers(NamedTuple):
    """What nodes signed when they were asked, and how many disks had been put back by then."""

    batches: list[ReceiptBatch]
    notices: int


class Taken(NamedTuple):
    """Receipts that a party passed on, and what the nodes signed that were asked about them."""

    sent: list[ReceiptBatch]
    answers: Answers

    @property
    def objects(self) -> int:
        """How many receipts were passed on."""
        return sum(len(batch.receipts) for batch in self.sent)


class Intake:
    """One object a gateway."""

    def __init__(
        self,
        *,
        database: Database,
        nodes: Nodes,
        keys: NodeKeys,
        links: NodeLinks,
        old_disks: OldDisks,
        recall: Recall,
    ) -> None:
        self._database, self._nodes, self._keys, self._links = database, nodes, keys, links
        self._old_disks, self._recall = old_disks, recall

    async def take(self, signed: list[SignedReceipts]) -> Taken:
        """Return what nodes signed; copies that it names and that may be gone since are asked for first.

        Raises:
            ProtocolError, UnauthorisedError: see `gateway.signatures.NodeKeys.verify`.
        """
        answers = Answers([], self._old_disks.notices)
        batches = await asyncio.to_thread(self._keys.verify_all, signed)
        if not batches:
            return Taken([], answers)
        doubts, younger = await self._database.read(
            lambda link: (doubted(link, batches), on_younger_disks(link, batches))
        )
        if doubts:
            await self._recall(doubts)
        live = self._nodes.live(time.monotonic()) if younger else []
        for node in (node for node in live if node.node_id in younger):
            answers.batches.extend((await self.check([node], younger[node.node_id])).batches)
        return Taken(batches, answers)

    async def check(self, nodes: list[Heartbeat], object_ids: list[bytes]) -> Answers:
        """Return what the nodes themselves sign that they hold."""
        notices = self._old_disks.notices
        signed = await self._links.check(nodes, object_ids)
        return Answers(await asyncio.to_thread(lambda: [self._keys.verify(stored) for stored in signed]), notices)

    def valid(self, answers: Answers) -> list[ReceiptBatch]:
        """Return the answers, unless a disk was put back since: they may be of what it lost."""
        return answers.batches if answers.notices == self._old_disks.notices else []
