"""Admission: may this flow do what it asks? The one place that judges tickets at a node.

Pure. Refuses to do: connections, limits of memory (`nodes.credit`).
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from transfer import tickets
from transfer.errors import UnauthorisedError
from transfer.protocol.messages import Right
from transfer.tickets import Ticket
from transfer.tls import Peer


def admit(signed: bytes, peer: Peer | None, *, node_id: str, gateway_key: Ed25519PublicKey) -> Ticket:
    """Return the ticket if it is the gateway's, fresh, for this node, and shown by whom it was given to.

    `peer` is who the client's certificate names, None on a plain data plane. A node that the ticket names may show it
    too, to make replicas.

    Raises:
        UnauthorisedError: any of that is not so.
    """
    ticket = tickets.verify(signed, gateway_key)
    named = {node.node_id for node in ticket.nodes}
    if node_id not in named:
        raise UnauthorisedError(f"the ticket does not name {node_id}; renew it at the gateway")
    if peer is None:
        return ticket
    if ticket.client_fingerprint == peer.fingerprint:
        return ticket
    if peer.role == "node" and peer.name in named and "put" in ticket.rights:
        return ticket
    raise UnauthorisedError("the ticket was given to another certificate; ask the gateway for one of your own")


def require(ticket: Ticket, right: Right) -> None:
    """Check one right.

    Raises:
        UnauthorisedError: the ticket does not give it.
    """
    if right not in ticket.rights:
        raise UnauthorisedError(f"the ticket does not allow `{right}`")
