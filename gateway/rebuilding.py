"""A catalogue made anew from what nodes list: units of work on a new database that nobody reads yet.

Everything that a node holds, whole and durable, is written visible: the catalogue that was lost may have shown it, and
an object too many harms nobody. Of objects that describe the same study or series differently the one with the lowest
id counts. Refuses to do: names that senders gave, transfers and events of the past; no node has them.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, func, select, update

from gateway.catalogue_age import note_trail
from gateway.clock import utc_now
from gateway.events import write_event
from gateway.hierarchy import describe
from gateway.listing import read_totals
from gateway.merging import Round
from gateway.receiving import chunks, record
from gateway.schema import object_, replica, totals
from gateway.wishes import wish_each
from transfer.objects import Identity


def write_round(connection: Connection, found: Round, replicas: int) -> int:
    """Write one stretch of objects with all their copies; return how many they are.

    As many replicas are wished from now on as there are, at least `replicas`: what senders wished is lost.
    """
    ids = record(connection, found.batches)
    copies = Counter(ids)
    for some in chunks(sorted(copies)):
        connection.execute(update(object_).where(object_.c.object_id.in_(some)).values(visible=True))
    wish_each(connection, {object_id: max(number, replicas) for object_id, number in copies.items()})
    describe(connection, _firsts(found))
    return len(copies)


def finish(connection: Connection, node_ids: list[str], trail_lines: int) -> dict[str, int]:
    """Count what is there, write the first event and the trail's length; return totals and the number of replicas."""
    summed = (func.count(), func.coalesce(func.sum(object_.c.size_bytes), 0))
    row = connection.execute(select(*summed, func.coalesce(func.sum(object_.c.stored_bytes), 0))).one()
    connection.execute(update(totals).values(objects=row[0], bytes=int(row[1]), stored_bytes=int(row[2])))
    write_event(connection, "catalogue rebuilt", utc_now(), {"objects": row[0], "node_ids": node_ids})
    note_trail(connection, trail_lines)
    copies = connection.execute(select(func.count()).select_from(replica)).scalar_one()
    return read_totals(connection) | {"replicas": copies}


def missing_of(connection: Connection, ids: Iterable[bytes]) -> list[bytes]:
    """Return those of the ids that are not in the catalogue."""
    wanted = sorted(set(ids))
    there: set[bytes] = set()
    for some in chunks(wanted):
        there |= set(connection.execute(select(object_.c.object_id).where(object_.c.object_id.in_(some))).scalars())
    return [object_id for object_id in wanted if object_id not in there]


def _firsts(found: Round) -> list[Identity]:
    """Return one identity of each series, of the object with the lowest id, in the order of these ids."""
    each = {receipt.object_id: receipt.identity for batch in found.batches for receipt in batch.receipts}
    firsts: dict[tuple[str, str], Identity] = {}
    for _, identity in sorted(each.items(), key=_id):
        if identity.sop_instance_uid and identity.study_instance_uid:
            firsts.setdefault((identity.study_instance_uid, identity.series_instance_uid), identity)
    return list(firsts.values())


def _id(item: tuple[bytes, Any]) -> bytes:
    return item[0]
