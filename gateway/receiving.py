"""Receipts into the catalogue: the only way that a fact about an object gets in.

Units of work for `gateway.database`. What a node signed becomes `object`, `instance` and `replica` rows, unseen until
a commit; what a sender offered becomes durable for its transfer once as many replicas are known as it wished. The
same receipts again change nothing. Refuses to do: signatures (`gateway.signatures`), commits, reads for people.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, ScalarSelect, func, select, update
from sqlalchemy.sql import Select

from gateway import schema
from gateway.asides import without_doubted
from gateway.database import insert_new, insert_or_update
from gateway.disks import (
    gone_disks,
    is_there,
    note_disk,
    note_put_back,
    present_disks,
    put_back_since,
    replaced_since,
)
from gateway.schema import object_, offered, replica
from transfer.objects import Identity
from transfer.receipts import Receipt, ReceiptBatch

T = TypeVar("T")
CHUNK: Final = 1024  # ids in one IN list; below every database's limit of bound values
_INSTANCE_FIELDS: Final = (
    "sop_instance_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "study_instance_uid",
    "series_instance_uid",
    "instance_number",
)
_json = msgspec.json.Encoder()


def record(
    connection: Connection,
    batches: Iterable[ReceiptBatch],
    others: Mapping[str, str] | None = None,
    *,
    asked: bool = True,
) -> list[bytes]:
    """Write what verified receipts say; return the ids of their objects. Copies that were put aside are left out.

    `others`: the disks of the other nodes that the receipts name, as they were when these were asked for. Without, they
    are those of now, and what a receipt of before says of them is left out. `asked`: the nodes signed this when they
    were asked; else it may be of before, and what it says of its own node is left out where that disk was put back.
    """
    signed = [(batch, receipt) for batch in batches for receipt in batch.receipts]
    insert_new(connection, object_, [_object_row(receipt) for _, receipt in signed])
    insert_new(
        connection,
        schema.instance,
        [_instance_row(receipt) for _, receipt in signed if receipt.identity.sop_instance_uid],
    )
    disks = present_disks(connection) if others is None else others
    out = replaced_since(connection, (batch.transfer_id for batch, _ in signed)) if others is None else {}
    late = {} if asked else put_back_since(connection, (batch.transfer_id for batch, _ in signed))
    rows = [row for batch, receipt in signed for row in _replica_rows(batch, receipt, disks, out, late)]
    _write_replicas(connection, without_doubted(connection, rows))
    return [receipt.object_id for _, receipt in signed]


def _write_replicas(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows; one of a disk that was replaced does not take the place of what is there now."""
    gone = gone_disks(connection)
    insert_or_update(connection, replica, [row for row in rows if (row["node_id"], row["incarnation"]) not in gone])
    insert_new(connection, replica, [row for row in rows if (row["node_id"], row["incarnation"]) in gone])


def mark_durable(
    connection: Connection,
    transfer_key: int,
    replicas: int,
    object_ids: Iterable[bytes],
    counted: AbstractSet[str] | None = None,
) -> None:
    """Mark those of the transfer's offered objects that have their replicas, and count them.

    `counted`: the nodes whose copies do; None: all.
    """
    copies = _copies(counted)
    marked = 0
    for ids in chunks(list(object_ids)):
        statement = (
            update(offered)
            .where(offered.c.transfer_key == transfer_key, offered.c.object_id.in_(ids))
            .where(offered.c.durable.is_(False), copies >= replicas)
            .values(durable=True)
        )
        marked += connection.execute(statement).rowcount
    if marked:
        transfer = schema.transfer
        connection.execute(
            update(transfer)
            .where(transfer.c.transfer_key == transfer_key)
            .values(durable_objects=transfer.c.durable_objects + marked)
        )


def unmark_durable(
    connection: Connection, object_ids: Sequence[bytes] | None = None, counted: AbstractSet[str] | None = None
) -> None:
    """Take the mark from objects that have their replicas no longer, so that no open transfer commits them.

    None: from whatever is offered, which takes a while. `counted`: as of `mark_durable`.
    """
    _unmark(connection, _marked_short(_copies(counted)), object_ids)


def unmark_uncounted(
    connection: Connection, transfer_key: int, counted: AbstractSet[str], object_ids: Sequence[bytes] | None = None
) -> None:
    """Take the mark from those objects (None: all) of the transfer that lack replicas on the nodes `counted`."""
    known = set(connection.execute(select(schema.disk.c.node_id).distinct()).scalars())
    if known <= counted:  # as mostly, and nothing is to be looked at
        return
    _unmark(connection, _marked_short(_copies(counted)).where(offered.c.transfer_key == transfer_key), object_ids)


def _copies(counted: AbstractSet[str] | None) -> ScalarSelect[int]:
    """Return the number of an offered object's copies that are there."""
    query = select(func.count()).where(replica.c.object_id == offered.c.object_id, is_there())
    if counted is not None:
        query = query.where(replica.c.node_id.in_(sorted(counted)))
    return query.scalar_subquery()


def _marked_short(copies: ScalarSelect[int]) -> Select[tuple[int, bytes]]:
    transfer = schema.transfer
    joined = offered.join(transfer, transfer.c.transfer_key == offered.c.transfer_key)
    query = select(offered.c.transfer_key, offered.c.object_id).select_from(joined)
    return query.where(offered.c.durable.is_(True), copies < transfer.c.replicas)


def _unmark(connection: Connection, short: Select[tuple[int, bytes]], object_ids: Sequence[bytes] | None) -> None:
    """Take the mark from what `short` finds, among these objects (None: all)."""
    transfer = schema.transfer
    if object_ids is None:
        found = [*connection.execute(short)]
    else:
        found = [*rows_of(connection, short, offered.c.object_id, object_ids)]
    for key, object_id in found:
        mine = (offered.c.transfer_key == key, offered.c.object_id == object_id)
        connection.execute(update(offered).where(*mine).values(durable=False))
        fewer = {"durable_objects": transfer.c.durable_objects - 1}
        connection.execute(update(transfer).where(transfer.c.transfer_key == key).values(fewer))


def take_disk(connection: Connection, node_id: str, incarnation: str) -> bool:
    """Write which disk a node has now; no open transfer commits what was on another one alone. Tell if it had one."""
    replaced = note_disk(connection, node_id, incarnation)
    if replaced:
        unmark_durable(connection)
    return replaced


def take_old_disks(connection: Connection, node_ids: Sequence[str], counted: AbstractSet[str]) -> None:
    """Write that these nodes' disks were put back; no open transfer commits what is not on the nodes `counted`."""
    note_put_back(connection, node_ids)
    unmark_durable(connection, counted=counted)


def rows_of(connection: Connection, query: Select[Any], column: Any, ids: Sequence[Any]) -> Iterator[Any]:
    """Run `query` for those `ids`, however many."""
    for some in chunks(ids):
        yield from connection.execute(query.where(column.in_(some)))


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut into pieces that fit one statement."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _object_row(receipt: Receipt) -> dict[str, Any]:
    return {
        "object_id": receipt.object_id,
        "size_bytes": receipt.size_bytes,
        "stored_bytes": receipt.stored_bytes,
        "encoding": receipt.encoding,
        "identity": _json.encode(receipt.identity),
    }


def _instance_row(receipt: Receipt) -> dict[str, Any]:
    identity: Identity = receipt.identity
    return {"object_id": receipt.object_id} | {name: getattr(identity, name) for name in _INSTANCE_FIELDS}


def _replica_rows(
    batch: ReceiptBatch,
    receipt: Receipt,
    disks: Mapping[str, str],
    out: Mapping[str, AbstractSet[str]],
    late: Mapping[str, AbstractSet[str]],
) -> Iterator[dict[str, Any]]:
    others = set(receipt.node_ids) - {batch.node_id} - out.get(batch.transfer_id, set())
    for node_id in others | {batch.node_id} - late.get(batch.transfer_id, set()):
        yield {
            "object_id": receipt.object_id,
            "node_id": node_id,
            "stored_bytes": receipt.stored_bytes,
            "encoding": receipt.encoding,
            "incarnation": batch.incarnation if node_id == batch.node_id else disks.get(node_id, ""),
        }
