"""Which disks are gone: a node that comes back with another disk has lost what it held on the one before.

A disk's incarnation is in the node's heartbeats and receipts, signed. Replicas on a disk that was replaced are neither
counted nor shown; when that disk comes back, they are again. A receipt from a disk of which nothing is known counts:
the node's word came before its heartbeat. A receipt names copies on other nodes without their disks: of those it says
nothing where the disk may be younger than the receipt. A disk that was put back from an older copy of itself has its
incarnation still: what its node signed before may be of what it lost. Units of work for `gateway.database`. Refuses to
do: guesses from silence.
"""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from gateway.database import insert_or_update
from gateway.schema import disk, meta, replica, transfer
from transfer.receipts import ReceiptBatch

# Each and the node's name, in `meta`: the last transfer that was opened before; or just that it is so.
REPLACED: Final = "disk_replaced:"
PUT_BACK: Final = "disk_put_back:"
NOT_COMPARED: Final = "disk_not_compared:"  # with the catalogue, since it was put back


def note_disk(connection: Connection, node_id: str, incarnation: str) -> bool:
    """Write that the node has this disk now, and none of those before; tell whether it had another one."""
    others = (disk.c.node_id == node_id, disk.c.incarnation != incarnation, disk.c.present.is_(True))
    replaced = connection.execute(update(disk).where(*others).values(present=False)).rowcount > 0
    insert_or_update(connection, disk, [{"node_id": node_id, "incarnation": incarnation, "present": True}])
    if replaced:
        _note_last(connection, [f"{REPLACED}{node_id}"])
    return replaced


def note_put_back(connection: Connection, node_ids: Iterable[str]) -> None:
    """Write that these nodes' disks are older copies of themselves: what was signed before may be of what they lost."""
    for node_id in node_ids:
        _note_last(connection, [f"{REPLACED}{node_id}", f"{PUT_BACK}{node_id}"])
        insert_or_update(connection, meta, [{"key": f"{NOT_COMPARED}{node_id}", "value": ""}])


def note_compared(connection: Connection, node_id: str) -> None:
    """Write that a stocktake went through a disk that was put back; receipts of before stay what they are."""
    connection.execute(delete(meta).where(meta.c.key == f"{NOT_COMPARED}{node_id}"))


def not_compared(connection: Connection) -> set[str]:
    """Return the nodes whose disk was put back and not compared since."""
    keys = connection.execute(select(meta.c.key).where(meta.c.key.startswith(NOT_COMPARED))).scalars()
    return {key.removeprefix(NOT_COMPARED) for key in keys}


def _note_last(connection: Connection, keys: Iterable[str]) -> None:
    last = connection.execute(select(func.coalesce(func.max(transfer.c.transfer_key), 0))).scalar_one()
    insert_or_update(connection, meta, [{"key": key, "value": str(last)} for key in keys])


def present_disks(connection: Connection) -> dict[str, str]:
    """Return the incarnation of each node's disk, where a heartbeat has told it."""
    rows = connection.execute(select(disk.c.node_id, disk.c.incarnation).where(disk.c.present.is_(True)))
    return {row.node_id: row.incarnation for row in rows}


def gone_disks(connection: Connection) -> set[tuple[str, str]]:
    """Return the disks that were replaced: node id, incarnation."""
    rows = connection.execute(select(disk.c.node_id, disk.c.incarnation).where(disk.c.present.is_(False)))
    return {(row.node_id, row.incarnation) for row in rows}


def replaced_since(connection: Connection, transfer_ids: Iterable[str]) -> dict[str, set[str]]:
    """Return, by transfer, the nodes whose disk was replaced since it was opened; of an unknown one: ever.

    What a receipt of the transfer says of a copy there may be of the disk before.
    """
    return _since(connection, REPLACED, transfer_ids)


def put_back_since(connection: Connection, transfer_ids: Iterable[str]) -> dict[str, set[str]]:
    """Return the same of nodes whose disk was put back: what such a node itself signed may be of what it lost."""
    return _since(connection, PUT_BACK, transfer_ids)


def _since(connection: Connection, prefix: str, transfer_ids: Iterable[str]) -> dict[str, set[str]]:
    query = select(meta.c.key, meta.c.value).where(meta.c.key.startswith(prefix))
    lasts = {row.key.removeprefix(prefix): int(row.value) for row in connection.execute(query)}
    found: dict[str, set[str]] = {}
    for transfer_id in set(transfer_ids) if lasts else ():
        opened = select(transfer.c.transfer_key).where(transfer.c.transfer_id == transfer_id)
        key = connection.execute(opened).scalar_one_or_none() or 0
        found[transfer_id] = {node_id for node_id, last in lasts.items() if key <= last}
    return found


def on_younger_disks(connection: Connection, batches: Iterable[ReceiptBatch]) -> dict[str, list[bytes]]:
    """Return, by node, the copies of which only that node itself can tell whether its disk of now has them."""
    signed = list(batches)
    transfer_ids = {batch.transfer_id for batch in signed}
    replaced, put_back = replaced_since(connection, transfer_ids), put_back_since(connection, transfer_ids)
    found: dict[str, set[bytes]] = {}
    for batch in signed if replaced else ():
        own = {batch.node_id}
        asked = replaced[batch.transfer_id] - own | put_back.get(batch.transfer_id, set()) & own
        for receipt in batch.receipts:
            for node_id in asked.intersection({*own, *receipt.node_ids}):
                found.setdefault(node_id, set()).add(receipt.object_id)
    return {node_id: sorted(ids) for node_id, ids in found.items()}


def is_there() -> ColumnElement[Any]:
    """Return the condition that a replica's disk was not replaced."""
    gone = select(disk.c.node_id).where(
        disk.c.node_id == replica.c.node_id,
        disk.c.incarnation == replica.c.incarnation,
        disk.c.present.is_(False),
    )
    return ~gone.exists()
