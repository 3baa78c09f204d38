"""Which disks are gone: a node that comes back with another disk has lost what it held on the one before.

A disk's incarnation is in the node's heartbeats and receipts, signed. Replicas on a disk that was replaced are neither
counted nor shown; when that disk comes back, they are again. A receipt from a disk of which nothing is known counts:
the node's word came before its heartbeat. Units of work for `gateway.database`. Refuses to do: guesses from silence.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from gateway.database import insert_or_update
from gateway.schema import disk, replica


def note_disk(connection: Connection, node_id: str, incarnation: str) -> bool:
    """Write that the node has this disk now, and none of those before; tell whether it had another one."""
    others = (disk.c.node_id == node_id, disk.c.incarnation != incarnation, disk.c.present.is_(True))
    replaced = connection.execute(update(disk).where(*others).values(present=False)).rowcount > 0
    insert_or_update(connection, disk, [{"node_id": node_id, "incarnation": incarnation, "present": True}])
    return replaced


def present_disks(connection: Connection) -> dict[str, str]:
    """Return the incarnation of each node's disk, where a heartbeat has told it."""
    rows = connection.execute(select(disk.c.node_id, disk.c.incarnation).where(disk.c.present.is_(True)))
    return {row.node_id: row.incarnation for row in rows}


def is_there() -> ColumnElement[Any]:
    """Return the condition that a replica's disk was not replaced."""
    gone = select(disk.c.node_id).where(
        disk.c.node_id == replica.c.node_id,
        disk.c.incarnation == replica.c.incarnation,
        disk.c.present.is_(False),
    )
    return ~gone.exists()
