"""The node: what all its flows share - identity, store, committer, replica links, memory, counts.

Refuses to do: connections (`nodes.server`), conversations (`nodes.session`), the disk (`nodes.store`).
"""

import contextlib
import ssl
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nodes import admission, credit
from nodes.committer import Committer
from nodes.metrics import Metrics
from nodes.objectfile import HEADER_BYTES, Record
from nodes.replicate import Replicator
from nodes.store import Store
from nodes.trash import Trash
from nodes.trust import Trusted
from transfer import receipts
from transfer.buffers import Buffers
from transfer.errors import BusyError, FullError, UnauthorisedError
from transfer.protocol.frames import PAYLOAD_BYTES_MAX
from transfer.protocol.messages import Stored
from transfer.receipts import Receipt, ReceiptBatch
from transfer.tickets import Ticket
from transfer.tls import Peer

TRANSFERS_REMEMBERED: Final = 4096
CHECKS_AT_ONCE: Final = 2  # they read whole objects, and must not take the threads that make others durable


class Node:
    """What the sessions of one node share."""

    def __init__(
        self,
        *,
        node_id: str,
        store: Store,
        signing_key: Ed25519PrivateKey,
        trusted: Trusted,
        client_context: ssl.SSLContext | None,
        nursery: trio.Nursery,
    ) -> None:
        self.node_id = node_id
        self.store = store
        self.trash = Trash(store)
        self.signing_key = signing_key
        self.committer = Committer(store)
        self.replicator = Replicator(store, node_id, client_context, nursery, trusted.is_revoked)
        self.buffers = Buffers(PAYLOAD_BYTES_MAX, HEADER_BYTES)
        self.checks = trio.CapacityLimiter(CHECKS_AT_ONCE)
        self.flows = 0
        self._node_flows: Counter[str] = Counter()  # of `flows`, those of nodes, by name
        self.metrics = Metrics(free_bytes=self.free_bytes, objects=self.objects, flows=lambda: self.flows)
        self.trusted = trusted
        self._open: dict[trio.CancelScope, tuple[Ticket, Peer | None]] = {}
        self._spent_bytes: OrderedDict[str, int] = OrderedDict()  # by transfer, the latest last

    @property
    def incarnation(self) -> str:
        """The id of this life of the node's disk."""
        return self.store.incarnation

    def free_bytes(self) -> int:
        """Return the room above the reserve."""
        return self.store.statistics().free_bytes

    def objects(self) -> int:
        """Return the number of objects stored here."""
        return self.store.statistics().objects

    def receipt(self, record: Record, others: Sequence[str] = ()) -> Receipt:
        """Return the receipt of an object that is durable here and on `others`."""
        return Receipt(
            bytes.fromhex(record.object_id),
            record.size_bytes,
            record.stored_bytes,
            record.encoding,
            [self.node_id, *others],
            record.identity,
        )

    def sign(self, transfer_id: str, batch: list[Receipt]) -> Stored:
        """Return a signed batch of receipts."""
        return receipts.sign(ReceiptBatch(self.node_id, self.incarnation, transfer_id, batch), self.signing_key)

    def admit(self, signed: bytes, peer: Peer | None) -> Ticket:
        """Judge a ticket (`nodes.admission`)."""
        return admission.admit(signed, peer, node_id=self.node_id, trusted=self.trusted)

    @contextlib.contextmanager
    def ended_when_revoked(self, ticket: Ticket, peer: Peer | None) -> Iterator[None]:
        """Run a flow as long as what opened it is good.

        Raises:
            UnauthorisedError: the certificate or the ticket's epoch was revoked meanwhile.
        """
        with trio.CancelScope() as scope:
            self._open[scope] = (ticket, peer)
            try:
                yield
            finally:
                del self._open[scope]
        if scope.cancelled_caught:
            admission.check_not_revoked(peer, self.trusted)
            raise UnauthorisedError("the ticket was revoked; renew it at the gateway")

    def end_revoked(self) -> None:
        """End the flows whose certificate or ticket is not good any more, and the links to peers that are not."""
        self.replicator.end_revoked()
        for scope, (ticket, peer) in self._open.items():
            if ticket.epoch < self.trusted.epoch or (peer is not None and self.trusted.is_revoked(peer)):
                scope.cancel()

    def check_room_for_flow(self, peer: Peer | None) -> None:
        """Check that one more flow that sends has memory.

        Nodes that are full of senders, each of which waits for a replica on another such node, would wait for ever if
        a link between them needed one of the senders' places. No node has them all: its tickets to put do not expire.

        Raises:
            BusyError: as many flows as there are windows, or as one node may have.
        """
        if peer is not None and self._node_flows[peer.name] >= credit.NODE_FLOWS_MAX:
            raise BusyError(f"{peer.name[:64]} has {credit.NODE_FLOWS_MAX} flows that send here, as many as a node may")
        if self.flows >= credit.FLOWS_MAX + credit.KEPT_FLOWS * admission.is_node(peer):
            raise BusyError(f"{self.node_id} has {self.flows} flows that send, as many as it may")

    @contextlib.contextmanager
    def counted_flow(self, peer: Peer | None) -> Iterator[None]:
        """Count a flow that sends while it is open."""
        of_node = [peer.name] if peer is not None and admission.is_node(peer) else []
        self.flows += 1
        self._node_flows.update(of_node)
        try:
            yield
        finally:
            self.flows -= 1
            self._node_flows.subtract(of_node)

    def spend(self, ticket: Ticket, length: int) -> None:
        """Take bytes that arrived off what the ticket's transfer may send here.

        Raises:
            FullError: the transfer has sent as much as its ticket allows.
        """
        spent = self._spent_bytes.get(ticket.transfer_id, 0) + length
        if spent > ticket.max_bytes:
            raise FullError(f"the ticket allows {ticket.max_bytes} bytes in all; open a new transfer for more")
        self._spent_bytes[ticket.transfer_id] = spent
        self._spent_bytes.move_to_end(ticket.transfer_id)
        if len(self._spent_bytes) > TRANSFERS_REMEMBERED:
            self._spent_bytes.popitem(last=False)
