"""Admission: may this flow do what it asks? The one place that judges tickets at a node.

Pure. Refuses to do: connections, limits of memory (`nodes.credit`).
"""

import time
from typing import Final

from nodes.trust import Trusted
from transfer import tickets
from transfer.errors import UnauthorisedError
from transfer.protocol.messages import Right
from transfer.tickets import Ticket
from transfer.tls import Peer

NODE: Final = "node"
OURS: Final = frozenset({NODE, "gateway"})
CLOCKS_APART_S: Final = 300.0  # what this clock and the gateway's may differ by before tickets look too long


def admit(signed: bytes, peer: Peer | None, *, node_id: str, trusted: Trusted) -> Ticket:
    """Return the ticket if it is the gateway's, fresh, for this node, and shown by whom it was given to.

    `peer` is who the client's certificate names, None on a plain data plane. A node that the ticket names may show it
    too, to make replicas, also after it has expired: the flow on which the object came was opened in time, and may
    last for hours.

    Raises:
        UnauthorisedError: any of that is not so.
    """
    from_node = is_node(peer)
    check_not_revoked(peer, trusted)
    ticket = tickets.verify(signed, *trusted.keys, epoch=trusted.epoch, now_s=0.0 if from_node else None)
    if ticket.expires_at_s > time.time() + tickets.LIFETIME_S + CLOCKS_APART_S:
        raise UnauthorisedError("the ticket lasts longer than any may; set the clocks of gateway and node (NTP)")
    named = {node.node_id for node in ticket.nodes}
    if node_id not in named:
        raise UnauthorisedError(f"the ticket does not name {node_id}; renew it at the gateway")
    if peer is None:
        return ticket
    if ticket.client_fingerprint == peer.fingerprint:
        return ticket
    if from_node and peer.name in named and "put" in ticket.rights:
        return ticket
    raise UnauthorisedError("the ticket was given to another certificate; ask the gateway for one of your own")


def check_not_revoked(peer: Peer | None, trusted: Trusted) -> None:
    """Check that the client's certificate is still good.

    Raises:
        UnauthorisedError: its party was revoked.
    """
    if peer is not None and trusted.is_revoked(peer):
        raise UnauthorisedError(f"the certificate of {peer.name[:64]} was revoked; enrol it anew")


def is_node(peer: Peer | None) -> bool:
    """Tell whether the client is a node of this cluster, by its certificate."""
    return peer is not None and peer.role == NODE


def is_ours(peer: Peer | None) -> bool:
    """Tell whether the client is a part of the cluster itself, by its certificate."""
    return peer is not None and peer.role in OURS


def require(ticket: Ticket, right: Right) -> None:
    """Check one right.

    Raises:
        UnauthorisedError: the ticket does not give it.
    """
    if right not in ticket.rights:
        raise UnauthorisedError(f"the ticket does not allow `{right}`")
