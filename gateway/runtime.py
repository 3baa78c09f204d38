"""The gateway's running time, kept in the catalogue: grace times count in it, so no clock that jumps ends one early.

It is in the catalogue and not beside it, so that a catalogue that was put back from a backup goes on from its own time:
what it says is "seen since" then never looks older than it is. Units of work for `gateway.database`. Refuses to do: the
time of day.
"""

from typing import Final

from sqlalchemy import Connection, select

from gateway.database import insert_or_update
from gateway.schema import meta

KEY: Final = "running_s"


def running_s(connection: Connection) -> int:
    """Return the seconds of running time so far."""
    found = connection.execute(select(meta.c.value).where(meta.c.key == KEY)).scalar_one_or_none()
    return int(found or "0")


def advance(connection: Connection, seconds: int) -> int:
    """Add what has passed, by the monotonic clock; return the sum."""
    now_s = running_s(connection) + max(0, seconds)
    insert_or_update(connection, meta, [{"key": KEY, "value": str(now_s)}])
    return now_s
