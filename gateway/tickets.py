"""The tickets that this gateway gives: to senders, to readers, and to itself.

Refuses to do: deciding who may have one.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from gateway.signatures import NodeKeys
from gateway.transfers import SIZE_BYTES_MAX, Transfer
from transfer import tickets
from transfer.heartbeat import Heartbeat
from transfer.protocol.messages import Right
from transfer.tickets import Ticket, TicketNode
from transfer.tls import Peer

# A sender that said how much it has may still find some more (a folder that grows); the nodes' own limit is space.
ROOM_RATIO: Final = 2
ROOM_BYTES_MIN: Final = 1 << 30


class Tickets:
    """Signs tickets. Without TLS on the data plane they are bound to no certificate, because none is shown."""

    def __init__(
        self, gateway: Peer, keys: NodeKeys, signing_key: Ed25519PrivateKey, *, lifetime_s: float, plain: bool
    ) -> None:
        self._gateway = gateway
        self._keys = keys
        self._signing_key = signing_key
        self._lifetime_s = lifetime_s
        self._plain = plain

    def for_sender(self, mine: Transfer, sender: Peer, nodes: Sequence[Heartbeat]) -> bytes:
        """Return a ticket to put the transfer's objects."""
        expected = mine.bytes_expected
        room = SIZE_BYTES_MAX if expected is None else min(SIZE_BYTES_MAX, max(expected * ROOM_RATIO, ROOM_BYTES_MIN))
        ticket = self._blank(sender, ["put"], list(map(self._named, nodes)))
        return self._sign(replace(ticket, transfer_id=mine.transfer_id, replicas=mine.replicas, max_bytes=room))

    def for_reader(self, rights: list[Right], reader: Peer, nodes: Sequence[Heartbeat]) -> bytes:
        """Return a ticket to read or check anything."""
        ticket = self._blank(reader, sorted(set(rights)), list(map(self._named, nodes)))
        return self._sign(replace(ticket, transfer_id=f"read-{secrets.token_hex(8)}"))

    def for_itself(self, node_id: str) -> bytes:
        """Return a ticket by which the gateway reserves and checks at one node."""
        node = TicketNode(node_id, "", 0, self._keys.hex(node_id), "")
        return self._sign(self._blank(self._gateway, ["reserve", "check"], [node]))

    def for_repair(self, node_id: str) -> bytes:
        """Return a ticket by which the gateway lists what one node holds, checks it, and has it copied."""
        node = TicketNode(node_id, "", 0, self._keys.hex(node_id), "")
        return self._sign(self._blank(self._gateway, ["check", "repair"], [node]))

    def for_copy(self, source: Heartbeat, target: Heartbeat) -> bytes:
        """Return a ticket by which `source` puts what it holds to `target`.

        As nodes keep the flow that it opens for other objects, too, it sets no limit to the bytes.
        """
        ticket = self._blank(self._gateway, ["put"], [self._named(source), self._named(target)])
        name = f"repair-{secrets.token_hex(8)}"
        return self._sign(replace(ticket, transfer_id=name, replicas=2, max_bytes=SIZE_BYTES_MAX))

    def _named(self, node: Heartbeat) -> TicketNode:
        return TicketNode(node.node_id, node.host, node.port, self._keys.hex(node.node_id), node.failure_domain)

    def _blank(self, holder: Peer, rights: list[Right], nodes: list[TicketNode]) -> Ticket:
        return Ticket(
            transfer_id="gateway",
            holder=holder.name,
            client_fingerprint="" if self._plain else holder.fingerprint,
            rights=rights,
            nodes=nodes,
            replicas=1,
            max_bytes=0,
            expires_at_s=time.time() + self._lifetime_s,
        )

    def _sign(self, ticket: Ticket) -> bytes:
        return tickets.sign(ticket, self._signing_key)
