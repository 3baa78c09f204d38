"""Tickets: the gateway's signed permission that nodes check offline (design section 10).

A ticket is the MessagePack bytes of `Ticket`, then the 64-byte Ed25519 signature over `CONTEXT` and these bytes. While
a gateway changes its key two are good; a ticket of an epoch that has passed is not, whoever signed it. Refuses to do:
knowing which keys and which epoch are good (`nodes.trust`), certificates.
"""

import time
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from transfer.errors import UnauthorisedError
from transfer.protocol.messages import UNREADABLE, NodeId, Right

CONTEXT: Final = b"fascicle ticket 1\n"
LIFETIME_S: Final = 120.0
SIGNATURE_BYTES: Final = 64


class TicketNode(msgspec.Struct, frozen=True, array_like=True):
    """A node that the ticket names: where other nodes reach it for replicas, and the key of its receipts (hex)."""

    node_id: NodeId
    host: str
    port: int
    public_key: str
    failure_domain: str


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What its holder may do, where, how much and until when (Unix seconds).

    `client_fingerprint` is the SHA-256 of the holder's certificate in hex, "" when the data plane is plain. A node that
    the ticket names may show it too, to make replicas. `epoch` only grows: a new one revokes all tickets before it.
    """

    transfer_id: str
    holder: str
    client_fingerprint: str
    rights: list[Right]
    nodes: list[TicketNode]
    replicas: int
    max_bytes: int
    expires_at_s: float
    epoch: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Ticket)


def sign(ticket: Ticket, key: Ed25519PrivateKey) -> bytes:
    """Return the bytes that travel."""
    body = _encoder.encode(ticket)
    return body + key.sign(CONTEXT + body)


def verify(signed: bytes, *keys: Ed25519PublicKey, epoch: int = 0, now_s: float | None = None) -> Ticket:
    """Return the ticket if one of the gateway's `keys` signed it, in this `epoch` or later, and it has not expired.

    Raises:
        UnauthorisedError: altered, of another key, revoked, expired, or not a ticket.
    """
    body, signature = signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:]
    if not any(_is_of(key, signature, body) for key in keys):
        raise UnauthorisedError("the ticket is altered or not this gateway's; open the transfer anew")
    try:
        ticket = _decoder.decode(body)
    except UNREADABLE as error:
        raise UnauthorisedError("the ticket cannot be read; is the gateway of another version?") from error
    if ticket.epoch < epoch:
        raise UnauthorisedError("the ticket was revoked; renew it at the gateway")
    late_s = (time.time() if now_s is None else now_s) - ticket.expires_at_s
    if late_s > 0:
        raise UnauthorisedError(
            f"the ticket has expired {late_s:.0f} s ago; renew it at the gateway, or set the clocks (NTP)"
        )
    return ticket


def _is_of(key: Ed25519PublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, CONTEXT + body)
    except InvalidSignature:
        return False
    return True
