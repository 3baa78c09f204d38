"""Orphans: copies that nodes hold and that nobody can ask for, and how long each has been one.

An orphan is a copy of an object that is neither shown nor offered in an open transfer. One that was so for its whole
grace time may be put aside. The catalogue knows of most of them, from receipts of transfers that were given up; of
those that it never heard of, it may itself be the reason (an old one, put back from a backup), so they go only at an
operator's word. Units of work for `gateway.database`; times are the gateway's running time. Refuses to do: asking
nodes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select

from gateway.asides import put_aside
from gateway.database import insert_new, insert_or_update
from gateway.merging import END
from gateway.schema import idle, object_, offered, spare, transfer
from gateway.transfers import abandon
from transfer.pages import Page
from transfer.receipts import ReceiptBatch


def note_orphans(connection: Connection, page: Page, ids: Iterable[bytes], now_s: int) -> None:
    """Write which copies of a page are orphans; those that were ones before keep their beginning."""
    wanted = set(ids)
    sizes = {one.object_id: one.stored_bytes for one in page.receipts if one.object_id in wanted}
    end = END if page.complete else page.last
    mine = (spare.c.node_id == page.node_id, spare.c.reason == "orphan")
    stretch = (*mine, spare.c.object_id > page.after, spare.c.object_id <= end)
    before = set(connection.execute(select(spare.c.object_id).where(*stretch)).scalars())
    for one in sorted(before - wanted):
        connection.execute(delete(spare).where(*mine, spare.c.object_id == one))
    rows = [_row(page.node_id, one, "orphan", sizes[one], now_s) for one in sorted(wanted - before)]
    insert_new(connection, spare, rows)


def begin_anew(connection: Connection, batch: ReceiptBatch, now_s: int) -> None:
    """Give copies that an operator had put back another grace time, whether they are orphans or too many."""
    orphans = is_orphan(connection, [one.object_id for one in batch.receipts])
    rows = [
        _row(batch.node_id, one.object_id, "orphan" if one.object_id in orphans else "extra", one.stored_bytes, now_s)
        for one in batch.receipts
    ]
    insert_or_update(connection, spare, rows)


def put_back_lately(connection: Connection, ids: Sequence[bytes], *, since_s: int) -> set[bytes]:
    """Return the objects of which a copy was put back after `since_s`; what is older is forgotten."""
    connection.execute(delete(spare).where(spare.c.reason == "extra", spare.c.since_s <= since_s))
    query = select(spare.c.object_id).where(spare.c.object_id.in_(ids), spare.c.reason == "extra")
    return set(connection.execute(query).scalars())


def orphans_of(connection: Connection, node_id: str, *, until_s: int, known: bool, limit: int) -> list[bytes]:
    """Return what is an orphan on the node since `until_s` or before; `known`: only what the catalogue heard of."""
    return [row.object_id for row in connection.execute(_orphans(node_id, until_s, known=known).limit(limit))]


def count_orphans(connection: Connection) -> int:
    """Return how many copies are orphans, however new."""
    query = _orphans(None, None, known=False).order_by(None).subquery()
    return connection.execute(select(func.count()).select_from(query)).scalar_one()


def put_orphans_aside(
    connection: Connection, node_id: str, ids: Sequence[bytes], *, until_s: int, known: bool
) -> list[bytes]:
    """Name those of the copies no more that are orphans still, in the transaction that looks; return them."""
    query = _orphans(node_id, until_s, known=known).where(spare.c.object_id.in_(ids))
    still = [row.object_id for row in connection.execute(query)]
    put_aside(connection, node_id, still, "orphan")
    connection.execute(delete(spare).where(spare.c.node_id == node_id, spare.c.object_id.in_(still)))
    return still


def is_orphan(connection: Connection, ids: Sequence[bytes]) -> set[bytes]:
    """Return those of the objects that are neither shown nor offered."""
    shown = select(object_.c.object_id).where(object_.c.object_id.in_(ids), object_.c.visible.is_(True))
    claimed = select(offered.c.object_id).where(offered.c.object_id.in_(ids))
    wanted = set(connection.execute(shown).scalars()) | set(connection.execute(claimed).scalars())
    return set(ids) - wanted


def abandon_idle(connection: Connection, now_s: int, life_s: float) -> list[str]:
    """Abandon the open transfers in which nothing happened for `life_s`; return their ids.

    Their senders open another when they come back; what is on nodes stays there, and is found when it is offered.
    """
    connection.execute(delete(idle).where(~idle.c.transfer_key.in_(_open())))
    progress = (transfer.c.offered_objects, transfer.c.durable_objects)
    known = transfer.join(idle, idle.c.transfer_key == transfer.c.transfer_key, isouter=True)
    moved = (idle.c.offered_objects != progress[0]) | (idle.c.durable_objects != progress[1])
    news = select(transfer.c.transfer_key, *progress).select_from(known).where(transfer.c.state == "open")
    rows = connection.execute(news.where(idle.c.transfer_key.is_(None) | moved)).all()
    insert_or_update(connection, idle, [row._asdict() | {"since_s": now_s} for row in rows])
    still = select(transfer.c.transfer_key, transfer.c.transfer_id).select_from(known)
    old = connection.execute(still.where(transfer.c.state == "open", idle.c.since_s <= now_s - life_s)).all()
    for row in old:
        connection.execute(delete(idle).where(idle.c.transfer_key == row.transfer_key))
        abandon(connection, row.transfer_key)
    return [row.transfer_id for row in old]


def _row(node_id: str, object_id: bytes, reason: str, stored_bytes: int, now_s: int) -> dict[str, Any]:
    key = {"node_id": node_id, "object_id": object_id}
    return key | {"reason": reason, "stored_bytes": stored_bytes, "since_s": now_s}


def _open() -> Select[tuple[int]]:
    return select(transfer.c.transfer_key).where(transfer.c.state == "open")


def _orphans(node_id: str | None, until_s: int | None, *, known: bool) -> Select[tuple[bytes, int]]:
    there = spare.join(object_, object_.c.object_id == spare.c.object_id, isouter=not known)
    claimed = select(offered.c.object_id).where(offered.c.object_id == spare.c.object_id)
    query = (
        select(spare.c.object_id, spare.c.stored_bytes)
        .select_from(there)
        .where(spare.c.reason == "orphan", ~claimed.exists(), object_.c.visible.is_not(True))
        .order_by(spare.c.node_id, spare.c.object_id)
    )
    query = query if until_s is None else query.where(spare.c.since_s <= until_s)
    return query if node_id is None else query.where(spare.c.node_id == node_id)
