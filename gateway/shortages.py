"""Which objects have fewer replicas than wished: a page of the catalogue at a time, never all of it.

Units of work for `Database.read`. A copy counts unless its disk was replaced or its node does not count: one that is
gone, draining, or not of this cluster any more. Refuses to do: deciding what happens then (`gateway.repairplan`).
"""

from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import Connection, func, select

from gateway.damage import holders
from gateway.repairplan import Shortage
from gateway.schema import object_, wish

PAGE_OBJECTS: Final = 1000


def read_shortages(
    connection: Connection, after: bytes, counted: AbstractSet[str], *, every: bool = False
) -> tuple[list[Shortage], bytes | None]:
    """Return what is short among the next objects, and where to go on (None: the end).

    Objects of which more than one replica is wished; with `every` also the others, as is needed when copies that are
    the only ones do not count because their node drains.
    """
    replicas = func.coalesce(wish.c.replicas, 1).label("replicas")
    joined = object_.join(wish, wish.c.object_id == object_.c.object_id, isouter=every)
    query = (
        select(object_.c.object_id, replicas, object_.c.stored_bytes)
        .select_from(joined)
        .where(object_.c.object_id > after)
        .order_by(object_.c.object_id)
        .limit(PAGE_OBJECTS)
    )
    rows = connection.execute(query.where(object_.c.visible.is_(True)) if every else query).all()
    held = holders(connection, [row.object_id for row in rows])
    found = []
    for row in rows:
        all_held = held.get(row.object_id, set())
        missing = row.replicas - len(all_held & counted)
        if missing > 0:
            found.append(Shortage(row.object_id, row.stored_bytes, frozenset(all_held), missing))
    return found, rows[-1].object_id if len(rows) == PAGE_OBJECTS else None
