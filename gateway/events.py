"""The event outbox: what happened, written in the transaction that made it happen, numbered in commit order.

Kinds and their fields: `objects stored` (transfer_id, object_ids: those that became visible, at most 500 an event),
`study stored` (transfer_id, study_instance_uid, new_instances, instances, series), `instance conflict` (transfer_id,
sop_instance_uid, object_ids), `object damaged` (node_id, object_ids: copies that are gone there), `object repaired`
(node_id, from_node_id, object_ids: copies that were made there), `object moved` (the same, for other copies to go),
`catalogue rebuilt` (objects, node_ids: the first event of a new numbering). Refuses to do: delivery; subscribers read
pages by number and remember the last.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, insert, select

from gateway.schema import event
from transfer.api import Event, Events

EVENTS_MAX: Final = 100  # in a page


def write_event(connection: Connection, kind: str, at: str, body: dict[str, Any]) -> None:
    """Append one event."""
    connection.execute(insert(event), [{"kind": kind, "at": at, "body": msgspec.json.encode(body)}])


def list_events(connection: Connection, after: int, limit: int) -> Events:
    """Return the events with numbers above `after`, oldest first."""
    query = select(event).where(event.c.sequence > after).order_by(event.c.sequence).limit(min(limit, EVENTS_MAX))
    found = [
        Event(
            sequence=row.sequence, kind=row.kind, at=row.at, body=msgspec.json.decode(row.body, type=dict[str, object])
        )
        for row in connection.execute(query)
    ]
    return Events(events=found, next=found[-1].sequence if found else after)
