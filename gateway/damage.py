"""Copies that are gone, and copies made in their place: what nodes signed, with its event, in one transaction.

Units of work for `gateway.database`; each may be repeated without harm. A copy is forgotten only when its node says so
itself, of the disk that it is on. Refuses to do: deciding what to repair (`gateway.repairplan`), deleting objects.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, or_, select, update

from gateway.asides import doubt, take_back
from gateway.clock import utc_now
from gateway.database import insert_new
from gateway.disks import is_there, present_disks
from gateway.events import write_event
from gateway.receiving import chunks, record, unmark_durable
from gateway.schema import damage, object_, replica, tally, wish
from transfer.receipts import ReceiptBatch

EVENT_IDS_MAX: Final = 500


def note_gone(connection: Connection, node_id: str, incarnation: str, ids: Sequence[bytes]) -> int:
    """Write that this disk of the node holds these objects no longer; return of how many that is news.

    What it signed of them before counts no more, also where that comes only now.
    """
    at = utc_now()
    news: list[bytes] = []
    for some in chunks(ids):
        mine = (
            replica.c.node_id == node_id,
            replica.c.incarnation.in_([incarnation, ""]),
            replica.c.object_id.in_(some),
        )
        news += connection.execute(select(replica.c.object_id).where(*mine)).scalars()
        connection.execute(delete(replica).where(*mine))
    insert_new(connection, damage, [{"object_id": one, "node_id": node_id, "noted_at": at} for one in news])
    doubt(connection, node_id, ids, at)
    unmark_durable(connection, news)
    _count(connection, "damaged", len(news))
    for start in range(0, len(news), EVENT_IDS_MAX):
        some_ids = [object_id.hex() for object_id in news[start : start + EVENT_IDS_MAX]]
        write_event(connection, "object damaged", at, {"node_id": node_id, "object_ids": some_ids})
    return len(news)


def note_copied(
    connection: Connection, batch: ReceiptBatch, target: str, *, disk: str | None = None, moved: bool = False
) -> int:
    """Write the receipts of copies that were made at `target`; return how many of them are news.

    `disk`: of the target when the copies were asked for; one that came since has none of them. `moved`: not to repair
    anything, but for another copy to go (`gateway.balance`).
    """
    ids = [receipt.object_id for receipt in batch.receipts if target in receipt.node_ids]
    before = holders(connection, ids)
    take_back(connection, [batch])
    record(connection, [batch], present_disks(connection) | ({} if disk is None else {target: disk}))
    after = holders(connection, ids)
    made = [object_id for object_id in ids if target in after.get(object_id, set())]
    news = [object_id for object_id in made if target not in before.get(object_id, set())]
    forget_made_good(connection, made)
    _count(connection, "moved" if moved else "repaired", len(news))
    if news:
        body = {"node_id": target, "from_node_id": batch.node_id, "object_ids": [one.hex() for one in news]}
        write_event(connection, "object moved" if moved else "object repaired", utc_now(), body)
    return len(news)


def note_found(connection: Connection, batches: Iterable[ReceiptBatch]) -> None:
    """Write what nodes hold after all, such as objects that were sent once more, or put back by an operator.

    The nodes were asked with `Watch.telling` held, so nothing of it was put aside since.
    """
    found = list(batches)
    take_back(connection, found)
    record(connection, found)
    for batch in found:
        ids = [receipt.object_id for receipt in batch.receipts]
        for some in chunks(ids):
            connection.execute(delete(damage).where(damage.c.node_id == batch.node_id, damage.c.object_id.in_(some)))


def forget_made_good(connection: Connection, ids: Sequence[bytes] | None = None) -> None:
    """Forget the damage of those objects (None: of all) that have as many copies as are wished, whoever made them.

    Such as the sender of an open transfer, which is told to send again what it has lost. Nobody was promised an
    object that no commit showed: of that there is nothing to make good.
    """
    copies = select(func.count()).where(replica.c.object_id == damage.c.object_id, is_there()).scalar_subquery()
    wished = select(wish.c.replicas).where(wish.c.object_id == damage.c.object_id).scalar_subquery()
    shown = select(object_.c.object_id).where(object_.c.object_id == damage.c.object_id, object_.c.visible.is_(True))
    good = delete(damage).where(or_(~shown.exists(), copies >= func.coalesce(wished, 1)))
    for some in [None] if ids is None else chunks(ids):
        connection.execute(good if some is None else good.where(damage.c.object_id.in_(some)))


def open_damage(connection: Connection, limit: int) -> dict[str, list[bytes]]:
    """Return, by node, objects whose copy there is gone and not made good elsewhere yet."""
    found: dict[str, list[bytes]] = {}
    for row in connection.execute(select(damage.c.node_id, damage.c.object_id).limit(limit)):
        found.setdefault(row.node_id, []).append(row.object_id)
    return found


def holders(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, set[str]]:
    """Return which nodes are known to hold each object, on the disks that they have now."""
    found: dict[bytes, set[str]] = {}
    for some in chunks(ids):
        query = select(replica.c.object_id, replica.c.node_id).where(is_there(), replica.c.object_id.in_(some))
        for row in connection.execute(query):
            found.setdefault(row.object_id, set()).add(row.node_id)
    return found


def read_repairs(connection: Connection) -> dict[str, int]:
    """Return what the catalogue knows of `transfer.api.RepairStatus`."""
    counts = {name: int(number) for name, number in connection.execute(select(tally.c.name, tally.c.count))}
    held = select(replica.c.object_id).where(replica.c.object_id == damage.c.object_id, is_there())
    number = select(func.count(damage.c.object_id.distinct()))
    return {
        "damaged_total": counts.get("damaged", 0),
        "repaired_total": counts.get("repaired", 0),
        "moved_total": counts.get("moved", 0),
        "damaged_objects": connection.execute(number).scalar_one(),
        "lost_objects": connection.execute(number.where(~held.exists())).scalar_one(),
    }


def _count(connection: Connection, name: str, number: int) -> None:
    insert_new(connection, tally, [{"name": name, "count": 0}])
    values: dict[str, Any] = {"count": tally.c.count + number}
    connection.execute(update(tally).where(tally.c.name == name).values(values))
