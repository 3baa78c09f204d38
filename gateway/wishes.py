"""How many replicas of an object are wished: the most that any sender did, kept where it is more than one.

Units of work for `gateway.database`. Refuses to do: counting what there is (`gateway.shortages`).
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, literal
from sqlalchemy.sql import Select

from gateway.database import insert_new, insert_new_from
from gateway.schema import wish


def wish_selected(connection: Connection, ids: Select[Any], replicas: int) -> None:
    """Wish `replicas` of the objects that `ids` selects (with a WHERE clause); a higher wish stays."""
    if replicas < 2:
        return
    connection.execute(delete(wish).where(wish.c.replicas < replicas, wish.c.object_id.in_(ids)))
    insert_new_from(connection, wish, ["object_id", "replicas"], ids.add_columns(literal(replicas)))


def wish_each(connection: Connection, wanted: Mapping[bytes, int]) -> None:
    """Wish so many replicas of each object of which nothing is wished yet."""
    rows = [{"object_id": object_id, "replicas": number} for object_id, number in wanted.items() if number > 1]
    insert_new(connection, wish, rows)
