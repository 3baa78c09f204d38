"""Receipts: a node's signed word that objects are durable.

A batch is signed once (Ed25519 over its MessagePack bytes), so receipts cost one signature a flush, not one an
object. What the batch says of an object's identity was read by the node from the bytes that it stored; the
gateway's catalogue is made from this and from nothing that a sender claims.
"""

from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from transfer.errors import ProtocolError, UnauthorisedError
from transfer.objects import Identity
from transfer.protocol.messages import UNREADABLE, EncodingName, NodeId, ObjectIdBytes, Size, Stored

CONTEXT: Final = b"fascicle receipt 1\n"  # a signature made for one purpose is worth nothing for another


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """One durable object: original and stored length, encoding, the nodes that hold it, its DICOM identity."""

    object_id: ObjectIdBytes
    size_bytes: Size
    stored_bytes: Size
    encoding: EncodingName
    node_ids: list[NodeId]
    identity: Identity


class ReceiptBatch(msgspec.Struct, frozen=True, array_like=True):
    """What one node signs at once. `incarnation` is the id of this life of the node's disk."""

    node_id: NodeId
    incarnation: str
    transfer_id: str
    receipts: list[Receipt]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ReceiptBatch)


def sign(batch: ReceiptBatch, key: Ed25519PrivateKey) -> Stored:
    """Return the frame that carries `batch`, signed by the node's key."""
    body = _encoder.encode(batch)
    return Stored(body, key.sign(CONTEXT + body))


def read_unverified(stored: Stored) -> ReceiptBatch:
    """Decode a batch to learn which node claims to have signed it.

    Raises:
        ProtocolError: not a receipt batch.
    """
    try:
        return _decoder.decode(stored.batch)
    except UNREADABLE as error:
        raise ProtocolError(f"receipts cannot be read: {error}") from error


def verify(stored: Stored, key: Ed25519PublicKey) -> ReceiptBatch:
    """Return the batch if `key` signed it.

    Raises:
        ProtocolError: not a receipt batch.
        UnauthorisedError: the signature is not this key's.
    """
    try:
        key.verify(stored.signature, CONTEXT + stored.batch)
    except InvalidSignature as error:
        raise UnauthorisedError("receipts carry a signature that is not their node's") from error
    return read_unverified(stored)
