"""One upload as the gateway conducts it (design section 4; S2, messages 1 to 6): open, renew, offer, receipts, commit.

Between the catalogue, the nodes' liveness and the flows to nodes; every step is durable before it is answered and may
be repeated. A receipt of an object that its transfer did not offer is kept as a fact about that object (a node signed
it) and counts for no transfer. Refuses to do: HTTP, SQL, authorisation by role.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs
from sqlalchemy import Connection

from gateway import announcements, commits, transfers
from gateway.audit import Audit
from gateway.database import Database
from gateway.draining import Draining
from gateway.intake import Intake, Recall, Taken
from gateway.liveness import Nodes, candidate
from gateway.metrics import Metrics
from gateway.nodelink import NodeLinks
from gateway.olddisks import OldDisks
from gateway.placement import place, weights
from gateway.settings import GatewaySettings
from gateway.signatures import NodeKeys
from gateway.tickets import Tickets
from gateway.transfers import Standing, Transfer
from transfer import names, reserve
from transfer.api import (
    Accepted,
    Announcement,
    Commit,
    Go,
    Named,
    Node,
    Offer,
    Offered,
    OpenRead,
    OpenTransfer,
    Receipts,
    Wanted,
)
from transfer.errors import BusyError, FullError, UnauthorisedError
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger
from transfer.protocol.messages import Right
from transfer.tls import Peer

ASKED_MAX: Final = 8  # nodes that confirm while the sender waits; it begins with fewer flows
READ_RIGHTS: Final[frozenset[Right]] = frozenset({"get", "check"})


class _Choice(NamedTuple):
    """The nodes that a transfer may go to, best first, and how many of them shall confirm."""

    transfer_id: str
    replicas: int
    nodes: int
    room_bytes: int  # on each
    ranked: list[Heartbeat]


class Uploads:
    """Conducts transfers; one object a gateway, used by many requests at once."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        database: Database,
        nodes: Nodes,
        keys: NodeKeys,
        links: NodeLinks,
        tickets: Tickets,
        signing_key: Ed25519PrivateKey,
        metrics: Metrics,
        audit: Audit,
        draining: Draining,
        recall: Recall,
        lasting: Callable[[], AbstractSet[str]],
        old_disks: OldDisks,
        on_short: Callable[[], None],
    ) -> None:
        self._audit = audit
        self._settings = settings
        self._draining, self._lasting, self._on_short = draining, lasting, on_short
        self._old_disks = old_disks
        self._intake = Intake(
            database=database, nodes=nodes, keys=keys, links=links, old_disks=old_disks, recall=recall
        )
        self._database = database
        self._nodes = nodes
        self._keys = keys
        self._links = links
        self._tickets = tickets
        self._signing_key = signing_key
        self._metrics = metrics

    async def open(self, wish: OpenTransfer, sender: Peer) -> Go:
        """Open a transfer (messages 1 to 3), and take its first offer (message 4).

        The catalogue is written while nodes confirm; where too few do, the transfer is given up again.

        Raises:
            BusyError: too few live nodes, or too few that confirm.
            FullError: no node has the room, or this gateway's own disk is nearly full.
            FascicleError: see `offer`.
        """
        reserve.require(self._settings.data, self._settings.reserve_bytes, "the gateway's disk")
        transfer_id = secrets.token_hex(16)
        replicas = wish.replicas or self._settings.default_replicas
        wish = structs.replace(wish, replicas=replicas)
        _check_names(wish.offered)
        choice = self._choose(transfer_id, replicas, wish.nodes, wish.bytes)
        begun, nodes = await asyncio.gather(
            self._begin(transfer_id, wish, sender), self._confirm(choice), return_exceptions=True
        )
        if isinstance(begun, BaseException):
            raise begun
        mine, durable = begun
        if isinstance(nodes, BaseException):
            await self._database.write(lambda connection: transfers.abandon(connection, mine.transfer_key))
            raise nodes
        return self._go(mine, nodes, sender, _stored(wish.offered, durable))

    async def _begin(self, transfer_id: str, wish: OpenTransfer, sender: Peer) -> tuple[Transfer, set[bytes]]:
        """Write a new transfer with its first offer; return it, and what of that is durable."""
        limit = self._settings.transfers_open_max

        def unit(connection: Connection) -> Standing:
            mine = transfers.open_transfer(connection, transfer_id, wish, sender, open_max=limit)
            if not wish.offered:
                return Standing(mine, set(), [])
            return transfers.offer(connection, transfer_id, sender, wish.offered, self._lasting())

        standing = await self._database.write(unit)
        await self._audit.note("transfer_opened", sender.name, transfer_id=transfer_id)
        return standing.transfer, await self._durable(standing)

    async def renew(self, transfer_id: str, sender: Peer) -> Go:
        """Give a new ticket to the nodes that are live now; what is still to come asks for no room a second time.

        Raises:
            BusyError, FullError: see `open`.
            FascicleError: see `gateway.transfers.find_owned`.
        """
        mine = await self._database.read(
            lambda connection: transfers.find_owned(connection, transfer_id, sender, state="open")
        )
        nodes = await self._confirm(self._choose(transfer_id, mine.replicas, mine.nodes_wished, size_bytes=None))
        return self._go(mine, nodes, sender)

    async def offer(self, transfer_id: str, sender: Peer, body: Offer) -> Wanted:
        """Say which objects are to be sent. What an earlier sender may have left on a node is asked for first.

        Raises:
            ProtocolError: a name that cannot be taken.
            FascicleError: see `gateway.transfers.offer`.
        """
        _check_names(body.objects)
        standing = await self._database.write(
            lambda connection: transfers.offer(connection, transfer_id, sender, body.objects, self._lasting())
        )
        stored = _stored(body.objects, await self._durable(standing))
        known = set(stored)
        wanted = dict.fromkeys(item.object_id for item in body.objects if item.object_id not in known)
        return Wanted(wanted=[*wanted], stored=stored)

    async def take_receipts(self, transfer_id: str, sender: Peer, body: Receipts) -> Accepted:
        """Write what nodes signed; say how many objects of the transfer are durable.

        Raises:
            ProtocolError, UnauthorisedError: see `gateway.signatures.NodeKeys.verify`.
            FascicleError: see `gateway.transfers.find_owned`.
        """
        taken = await self._intake.take(body.receipts)
        durable = await self._database.write(lambda connection: self._record(connection, transfer_id, sender, taken))
        self._metrics.objects_durable.inc(taken.objects)
        return Accepted(objects=durable)

    async def commit(self, transfer_id: str, sender: Peer, claim: Commit) -> bytes:
        """Write the last receipts and commit, in one transaction; return the receipt's JSON.

        Raises:
            ProtocolError, UnauthorisedError: see `gateway.signatures.NodeKeys.verify`.
            FascicleError: see `gateway.commits.commit`.
        """
        taken = await self._intake.take(claim.receipts)

        def unit(connection: Connection) -> bytes:
            if taken.sent:
                self._record(connection, transfer_id, sender, taken)
            taking_part = self._nodes.node_ids - self._old_disks.node_ids
            return commits.commit(connection, transfer_id, sender, claim, self._signing_key, taking_part=taking_part)

        receipt = await self._database.write(unit)
        await self._audit.note("transfer_committed", sender.name, transfer_id=transfer_id, objects=claim.objects)
        self._metrics.objects_durable.inc(taken.objects)
        self._metrics.commits.inc()
        get_logger().info("transfer_committed", transfer_id=transfer_id, sender=sender.name, objects=claim.objects)
        return receipt

    async def announce(self, node: Peer, body: Announcement) -> bytes:
        """Write objects that a node took in by the paper's own protocol, visible at once; return a receipt's JSON.

        Raises:
            ProtocolError, UnauthorisedError: bad signature or name, or receipts of another node.
            BusyError: the node's disk was put back, and is not compared yet; it announces again.
        """
        _check_names(body.names)
        taken = await self._intake.take(body.receipts)
        if any(batch.node_id != node.name for batch in taken.sent):
            raise UnauthorisedError("a node announces its own objects only")
        key, replicas = self._signing_key, self._settings.default_replicas

        def unit(connection: Connection) -> bytes:
            if node.name in self._old_disks.node_ids:
                raise BusyError(f"the disk of {node.name} was put back from a copy and is compared first; try again")
            return announcements.announce(
                connection,
                node,
                taken.sent,
                body.names,
                key,
                replicas=replicas,
                taking_part=self._nodes.node_ids,
                checked=self._intake.valid(taken.answers),
            )

        receipt = await self._database.write(unit)
        if replicas > 1:
            self._on_short()
        self._draining.took(node.name)
        transfer_id = announcements.id_of(taken.sent)
        await self._audit.note("objects_announced", node.name, transfer_id=transfer_id, objects=taken.objects)
        return receipt

    async def open_read(self, wish: OpenRead, reader: Peer) -> Go:
        """Give a ticket to read at all nodes that are live.

        Raises:
            UnauthorisedError: a right that readers do not have.
            BusyError: no node is live.
        """
        if not wish.rights or not set(wish.rights) <= READ_RIGHTS:
            raise UnauthorisedError("a reader may ask for the rights get and check")
        nodes = self._live()
        ticket = self._tickets.for_reader(wish.rights, reader, nodes)
        await self._audit.note("read_opened", reader.name, rights=sorted(set(wish.rights)))
        return self._answer("", 1, nodes, ticket)

    def _record(self, connection: Connection, transfer_id: str, sender: Peer, taken: Taken) -> int:
        """Write what a sender passed on; return how many objects of the transfer are durable."""
        checked = self._intake.valid(taken.answers)
        return transfers.take_receipts(connection, transfer_id, sender, taken.sent, self._counted(), checked=checked)

    async def _durable(self, standing: Standing) -> set[bytes]:
        """Return what of an offer is durable; what an earlier sender may have left on a node is asked for."""
        mine, uncertain = standing.transfer, standing.uncertain
        if not uncertain:
            return standing.durable
        answers = await self._intake.check(self._nodes.live(time.monotonic()), uncertain)
        if not any(batch.receipts for batch in answers.batches):
            return standing.durable
        return standing.durable | await self._database.write(
            lambda link: transfers.take_found(link, mine, self._intake.valid(answers), uncertain, self._lasting())
        )

    def _choose(self, transfer_id: str, replicas: int, wished: int | None, size_bytes: int | None) -> _Choice:
        """Rank the nodes that live and have the room.

        Raises:
            BusyError: fewer live nodes than replicas.
            FullError: fewer nodes with room than replicas.
        """
        out = self._draining.node_ids | self._nodes.twins(time.monotonic()) | self._old_disks.node_ids
        live = [node for node in self._live() if node.node_id not in out]
        if len(live) < replicas:
            old = "; disks that were put back from a copy are compared first" if self._old_disks.node_ids else ""
            raise BusyError(
                f"{replicas} replicas are wished and {len(live)} nodes are live; start more, or wish fewer{old}"
            )
        count = max(replicas, min(wished or self._settings.transfer_nodes_max, len(live)))
        room = -(-(size_bytes or 0) * replicas // count)
        by_id = {node.node_id: node for node in live}
        ranked = [
            by_id[one.node_id] for one in place(map(candidate, live), key=transfer_id, count=len(live), room_bytes=room)
        ]
        if len(ranked) < replicas:
            raise FullError(f"{len(ranked)} of {len(live)} live nodes have {room} bytes of room; add nodes or space")
        return _Choice(transfer_id, replicas, count, room, ranked)

    async def _confirm(self, choice: _Choice) -> list[Heartbeat]:
        """Return the nodes, best first: those that confirmed room, then, as their heartbeats say, those not asked.

        Those that do not confirm are replaced by the next.

        Raises:
            BusyError: too few confirm.
        """
        asked = max(choice.replicas, min(choice.nodes, ASKED_MAX))
        confirmed: list[Heartbeat] = []
        rest = choice.ranked
        for _ in range(2):
            if len(confirmed) < asked and rest:
                confirmed += await self._links.reserve(rest[:asked], choice.transfer_id, choice.room_bytes)
                rest = rest[asked:]
        if len(confirmed) < choice.replicas:
            raise BusyError(
                f"{len(confirmed)} nodes confirmed where {choice.replicas} replicas are wished; try again soon"
            )
        return [*confirmed, *rest][: choice.nodes]

    def _counted(self) -> AbstractSet[str]:
        """Return the nodes whose receipts count: the sender holds them, so that one is silent is no reason to wait."""
        return self._nodes.node_ids - self._draining.leaving - self._old_disks.node_ids

    def _live(self) -> list[Heartbeat]:
        live = self._nodes.live(time.monotonic())
        if not live:
            raise BusyError("no storage node is live; start the nodes, or see why their heartbeats do not arrive")
        return live

    def _go(self, mine: Transfer, nodes: list[Heartbeat], sender: Peer, stored: Sequence[str] = ()) -> Go:
        ticket = self._tickets.for_sender(mine, sender, nodes)
        return structs.replace(self._answer(mine.transfer_id, mine.replicas, nodes, ticket), stored=[*stored])

    def _answer(self, transfer_id: str, replicas: int, nodes: list[Heartbeat], ticket: bytes) -> Go:
        shares = weights([candidate(node) for node in nodes])
        tls = not self._settings.plain
        return Go(
            transfer_id=transfer_id,
            nodes=[
                Node(
                    node_id=node.node_id,
                    host=node.host,
                    port=node.port,
                    weight=share,
                    public_key=self._keys.hex(node.node_id),
                    tls=tls,
                )
                for node, share in zip(nodes, shares, strict=True)
            ],
            replicas=replicas,
            ticket=ticket,
            expires_in_s=self._settings.ticket_lifetime_s,
        )


def _check_names(objects: Iterable[Offered | Named]) -> None:
    for item in objects:
        names.check(item.name)


def _stored(objects: Iterable[Offered], durable: AbstractSet[bytes]) -> list[str]:
    """Return the ids of what is durable, in the order offered."""
    return [*dict.fromkeys(item.object_id for item in objects if bytes.fromhex(item.object_id) in durable)]
