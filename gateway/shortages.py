"""Which objects have fewer replicas than wished: a page of the catalogue at a time, never all of it.

Units of work for `Database.read`. A copy counts unless its node is gone or its disk was replaced. Refuses to do:
deciding what happens then (`gateway.repairplan`).
"""

from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import Connection, select

from gateway.damage import holders
from gateway.repairplan import Shortage
from gateway.schema import object_, wish

PAGE_OBJECTS: Final = 1000


def read_shortages(connection: Connection, after: bytes, gone: AbstractSet[str]) -> tuple[list[Shortage], bytes | None]:
    """Return what is short among the next objects of which replicas are wished, and where to go on (None: the end)."""
    query = (
        select(wish.c.object_id, wish.c.replicas, object_.c.stored_bytes)
        .select_from(wish.join(object_, object_.c.object_id == wish.c.object_id))
        .where(wish.c.object_id > after)
        .order_by(wish.c.object_id)
        .limit(PAGE_OBJECTS)
    )
    rows = connection.execute(query).all()
    held = holders(connection, [row.object_id for row in rows])
    found = []
    for row in rows:
        there = held.get(row.object_id, set()) - gone
        if len(there) < row.replicas:
            found.append(Shortage(row.object_id, row.stored_bytes, frozenset(there), row.replicas - len(there)))
    return found, rows[-1].object_id if len(rows) == PAGE_OBJECTS else None
