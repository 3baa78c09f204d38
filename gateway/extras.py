"""Objects of which more copies are known than wished, read from the catalogue, and the last look before one goes.

Units of work for `gateway.database`. A copy goes only where as many as wished stay, on disks that are there, and where
no open transfer counts on it. Refuses to do: choosing (`gateway.extraplan`), asking nodes (`gateway.discards`).
"""

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, func, select

from gateway.asides import put_aside
from gateway.damage import holders
from gateway.extraplan import Drop, Held
from gateway.receiving import chunks
from gateway.schema import object_, offered, wish
from gateway.spares import put_back_lately

PAGE_OBJECTS: Final = 1000


def read_held(connection: Connection, after: bytes) -> tuple[list[Held], bytes | None]:
    """Return the next visible objects with their holders, and where to go on (None: the end)."""
    query = select(object_.c.object_id).where(object_.c.object_id > after, object_.c.visible.is_(True))
    ids = list(connection.execute(query.order_by(object_.c.object_id).limit(PAGE_OBJECTS)).scalars())
    return held_of(connection, ids), ids[-1] if len(ids) == PAGE_OBJECTS else None


def held_of(connection: Connection, ids: Sequence[bytes]) -> list[Held]:
    """Return those of the objects that are visible, with their holders."""
    found: list[Held] = []
    replicas = func.coalesce(wish.c.replicas, 1).label("replicas")
    for some in chunks(ids):
        query = select(object_.c.object_id, object_.c.stored_bytes, replicas).select_from(
            object_.join(wish, wish.c.object_id == object_.c.object_id, isouter=True)
        )
        mine = query.where(object_.c.object_id.in_(some), object_.c.visible.is_(True)).order_by(object_.c.object_id)
        held = holders(connection, some)
        for row in connection.execute(mine):
            nodes = frozenset(held.get(row.object_id, set()))
            found.append(Held(row.object_id, row.stored_bytes, nodes, row.replicas))
    return found


def put_extras_aside(connection: Connection, drops: Iterable[Drop], *, back_since_s: int) -> list[Drop]:
    """Name those of the copies no more that are too many still, in the transaction that looks; return them.

    What an operator had put back after `back_since_s` is left alone.
    """
    wanted = {drop.object_id: drop for drop in drops}  # one copy of an object at a time
    ids = sorted(wanted)
    claimed = set(connection.execute(select(offered.c.object_id).where(offered.c.object_id.in_(ids))).scalars())
    excluded = claimed | put_back_lately(connection, ids, since_s=back_since_s)
    going = []
    for one in held_of(connection, [object_id for object_id in ids if object_id not in excluded]):
        drop = wanted[one.object_id]
        staying = one.holders & drop.keepers
        if drop.node_id in one.holders and drop.node_id not in staying and len(staying) >= max(1, one.wished):
            going.append(drop)
    for node_id in sorted({drop.node_id for drop in going}):
        put_aside(connection, node_id, [drop.object_id for drop in going if drop.node_id == node_id], "extra")
    return going
