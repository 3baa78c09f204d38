"""Copies that were put aside, or found damaged: from then on whatever a node signed of them before counts no more.

A receipt may lie at a sender for weeks, and the copy that it speaks of may have been put aside since. So a row of
`aside` stays from the decision on, also when the file is deleted, until the node was asked again (`gateway.trash`)
and has the object in its place. Units of work for `gateway.database`. Refuses to do: deciding what is put aside
(`gateway.spares`, `gateway.extras`).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, select

from gateway.clock import utc_now
from gateway.database import insert_new, insert_or_update
from gateway.schema import aside, replica
from transfer.protocol.messages import Reason
from transfer.receipts import ReceiptBatch

CHUNK = 1024  # ids in one IN list
DAMAGED: Final = "damaged"  # a reason beside `Reason`


def put_aside(connection: Connection, node_id: str, ids: Sequence[bytes], reason: Reason) -> None:
    """Name these copies no more; before the node is asked to put them aside, so that no kill leaves one named."""
    at = utc_now()
    rows = [{"object_id": one, "node_id": node_id, "reason": reason, "noted_at": at} for one in ids]
    insert_or_update(connection, aside, rows)
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        connection.execute(delete(replica).where(replica.c.node_id == node_id, replica.c.object_id.in_(some)))


def doubt(connection: Connection, node_id: str, ids: Sequence[bytes], at: str) -> None:
    """Note that the node has only damaged files of these; copies that were put aside there stay so."""
    rows = [{"object_id": one, "node_id": node_id, "reason": DAMAGED, "noted_at": at} for one in ids]
    insert_new(connection, aside, rows)


def were_put_aside(connection: Connection, node_id: str, ids: Sequence[bytes]) -> set[bytes]:
    """Return those of the objects of which this catalogue had the node's copy put aside."""
    mine = (aside.c.node_id == node_id, aside.c.object_id.in_(ids), aside.c.reason != DAMAGED)
    return set(connection.execute(select(aside.c.object_id).where(*mine)).scalars())


def doubted(connection: Connection, batches: Iterable[ReceiptBatch]) -> dict[str, list[bytes]]:
    """Return, by node, the copies that the receipts name and that were put aside or found damaged."""
    pairs = {
        (node_id, receipt.object_id)
        for batch in batches
        for receipt in batch.receipts
        for node_id in {batch.node_id, *receipt.node_ids}
    }
    found: dict[str, list[bytes]] = {}
    for node_id, object_id in sorted(_among(connection, pairs)):
        found.setdefault(node_id, []).append(object_id)
    return found


def without_doubted(connection: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the rows of `replica` whose copy was put aside."""
    among = _among(connection, {(row["node_id"], row["object_id"]) for row in rows})
    return [row for row in rows if (row["node_id"], row["object_id"]) not in among] if among else rows


def take_back(connection: Connection, batches: Iterable[ReceiptBatch]) -> None:
    """Note that these copies are in their places, by the word of nodes that were asked since."""
    for batch in batches:
        for receipt in batch.receipts:
            named = {batch.node_id, *receipt.node_ids}
            connection.execute(delete(aside).where(aside.c.object_id == receipt.object_id, aside.c.node_id.in_(named)))


def _among(connection: Connection, pairs: set[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
    """Return those of the pairs that were put aside; at once where nothing ever was."""
    if not pairs or connection.execute(select(aside.c.node_id).limit(1)).first() is None:
        return set()
    ids = sorted({object_id for _, object_id in pairs})
    found: set[tuple[str, bytes]] = set()
    for start in range(0, len(ids), CHUNK):
        query = select(aside.c.node_id, aside.c.object_id).where(aside.c.object_id.in_(ids[start : start + CHUNK]))
        found |= {(row.node_id, row.object_id) for row in connection.execute(query)}
    return found & pairs
