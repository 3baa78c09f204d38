"""Admission: may this flow do what it asks? The one place that judges tickets at a node.

Pure. Refuses to do: connections, limits of memory (`nodes.credit`).
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from transfer import tickets
from transfer.errors import UnauthorisedError
from transfer.protocol.messages import Right
from transfer.tickets import Ticket
from transfer.tls import Peer

NODE: Final = "node"


def admit(signed: bytes, peer: Peer | None, *, node_id: str, gateway_key: Ed25519PublicKey) -> Ticket:
    """Return the ticket if it is the gateway's, fresh, for this node, and shown by whom it was given to.

    `peer` is who the client's certificate names, None on a plain data plane. A node that the ticket names may show it
    too, to make replicas, also after it has expired: the flow on which the object came was opened in time, and may
    last for hours.

    Raises:
        UnauthorisedError: any of that is not so.
    """
    from_node = is_node(peer)
    ticket = tickets.verify(signed, gateway_key, now_s=0.0 if from_node else None)
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


def is_node(peer: Peer | None) -> bool:
    """Tell whether the client is a node of this cluster, by its certificate."""
    return peer is not None and peer.role == NODE


def require(ticket: Ticket, right: Right) -> None:
    """Check one right.

    Raises:
        UnauthorisedError: the ticket does not give it.
    """
    if right not in ticket.rights:
        raise UnauthorisedError(f"the ticket does not allow `{right}`")
