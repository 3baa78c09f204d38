"""Announcements: objects that came in at a node by the paper's own protocol, written as a transfer of their own.

The transfer's id is made of the receipts, so the same announcement again gets the same answer. One copy is there when
its client has been answered; of as many as are wished of a sender that says nothing the others are made by repair.
Units of work for `gateway.database`. Refuses to do: believing names for objects that no receipt speaks of.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from sqlalchemy import Connection

from gateway.commits import durable_ids, publish
from gateway.receiving import record
from gateway.transfers import find, is_known, offer, open_transfer
from transfer.api import Named, Offered, OpenTransfer
from transfer.errors import ConflictError, ProtocolError
from transfer.merkle import merkle_root
from transfer.receipts import ReceiptBatch
from transfer.tls import Peer


def id_of(batches: list[ReceiptBatch]) -> str:
    """Return the id of the transfer that an announcement is."""
    return "announced-" + blake3(msgspec.msgpack.encode(batches)).hexdigest()[:32]


def announce(
    connection: Connection,
    node: Peer,
    batches: list[ReceiptBatch],
    names: list[Named],
    key: Ed25519PrivateKey,
    *,
    replicas: int = 1,
    taking_part: AbstractSet[str] | None = None,
    checked: Iterable[ReceiptBatch] = (),
) -> bytes:
    """Write what verified receipts say, visible at once; return the JSON of the `CommitReceipt`. `replicas`: wished.

    `taking_part`: as of `gateway.commits.commit`; the node may have been revoked since its receipts were verified.
    `checked`: as of `gateway.transfers.take_receipts`.

    Raises:
        ProtocolError: a name for an object that is not among the receipts.
        ConflictError: not all of it is there; nothing was written. What is can be announced without the rest.
    """
    claims = list(_claims(batches, names))
    transfer_id = id_of(batches)
    if is_known(connection, transfer_id):
        return find(connection, transfer_id).receipt or b""  # opened and committed in one transaction
    mine = open_transfer(connection, transfer_id, OpenTransfer(), node, open_max=1)
    record(connection, batches, asked=False)
    record(connection, checked)
    offer(connection, transfer_id, node, claims, taking_part)
    ids = durable_ids(connection, mine)
    if len(ids) < len({claim.object_id for claim in claims}):
        raise ConflictError(
            "a copy that is announced was put aside or found damaged, and is not back, or its node was revoked; "
            "announce it alone"
        )
    root = merkle_root(object_id.hex() for object_id in ids)
    return publish(connection, replace(mine, replicas=replicas), len(ids), root, key)


def _claims(batches: list[ReceiptBatch], names: list[Named]) -> Iterator[Offered]:
    sizes = {receipt.object_id.hex(): receipt.size_bytes for batch in batches for receipt in batch.receipts}
    for object_id, size in sizes.items():
        yield Offered(object_id=object_id, size_bytes=size)
    for named in names:
        if named.object_id not in sizes:
            raise ProtocolError("a name is announced for an object without a receipt")
        yield Offered(object_id=named.object_id, size_bytes=sizes[named.object_id], name=named.name)
