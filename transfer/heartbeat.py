"""Heartbeats: a node's signed UDP datagram that says that it lives, where, and how much room it has.

A datagram is the MessagePack bytes of `Heartbeat`, then the 64-byte Ed25519 signature over `CONTEXT` and these bytes.
Within one life of the node's process the sequence grows; `started_ns` orders lives, so an old datagram is worth nothing
when it is sent again. Refuses to do: sockets, judging liveness.
"""

from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from transfer.errors import ProtocolError, UnauthorisedError
from transfer.protocol.messages import UNREADABLE, NodeId, Size

CONTEXT: Final = b"fascicle heartbeat 1\n"
SIGNATURE_BYTES: Final = 64
DATAGRAM_BYTES_MAX: Final = 1200  # fits every path without fragments
INTERVAL_S: Final = 2.0

Text = Annotated[str, Meta(max_length=255)]
Count = Annotated[int, Meta(ge=0, le=1 << 62)]


class Heartbeat(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself. `incarnation` is the id of this life of its disk, `quarantined` a number of files.

    `running_s`: how long nodes ran on this disk, in all; less than before tells of a disk put back from a copy.
    """

    node_id: NodeId
    incarnation: Text
    started_ns: Count
    sequence: Count
    host: Text
    port: Annotated[int, Meta(ge=1, le=65535)]
    failure_domain: Text
    free_bytes: Size
    used_bytes: Size
    objects: Count
    flows: Count
    quarantined: Count = 0
    running_s: Count = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Heartbeat)


def sign(heartbeat: Heartbeat, key: Ed25519PrivateKey) -> bytes:
    """Return the datagram."""
    body = _encoder.encode(heartbeat)
    return body + key.sign(CONTEXT + body)


def read_unverified(datagram: bytes) -> Heartbeat:
    """Decode a datagram to learn which node claims to have sent it.

    Raises:
        ProtocolError: too long, or not a heartbeat.
    """
    if len(datagram) > DATAGRAM_BYTES_MAX:
        raise ProtocolError(f"heartbeat of {len(datagram)} bytes")
    try:
        return _decoder.decode(datagram[:-SIGNATURE_BYTES])
    except UNREADABLE as error:
        raise ProtocolError(f"heartbeat that cannot be read: {error}") from error


def verify(datagram: bytes, key: Ed25519PublicKey) -> Heartbeat:
    """Return the heartbeat if `key` signed it.

    Raises:
        ProtocolError: not a heartbeat.
        UnauthorisedError: the signature is not this key's.
    """
    heartbeat = read_unverified(datagram)
    try:
        key.verify(datagram[-SIGNATURE_BYTES:], CONTEXT + datagram[:-SIGNATURE_BYTES])
    except InvalidSignature as error:
        raise UnauthorisedError(f"heartbeat of {heartbeat.node_id} with a signature that is not its own") from error
    return heartbeat
