"""What operators have done to nodes and to copies that are not needed: draining, the trash, orphans; as JSON.

Refuses to do: HTTP, keeping anything.
"""

from typing import Annotated

from msgspec import Meta

from transfer.api import Body, DrainStatus, ObjectIdText
from transfer.protocol.messages import TRASH_OBJECTS_MAX, NodeId, Reason

SomeIds = Annotated[list[ObjectIdText], Meta(min_length=1, max_length=TRASH_OBJECTS_MAX)]


class Drain(Body, frozen=True):
    """`POST /api/v1/drains`: a node is to be taken away, or with `undo` is not."""

    node_id: NodeId
    undo: bool = False


class Drains(Body, frozen=True):
    """The answer: all nodes that drain."""

    drains: list[DrainStatus]


class TrashEntry(Body, frozen=True):
    """A copy that was put aside; it may be deleted in `due_s` seconds of its node's running time."""

    object_id: str
    reason: Reason
    stored_bytes: int
    due_s: int


class TrashPage(Body, frozen=True):
    """`GET /api/v1/trash?node=&after=`: what one node put aside; `next` is the next page's `after`."""

    entries: list[TrashEntry]
    next: str | None


class SomeTrash(Body, frozen=True):
    """`POST /api/v1/trash/undo` and `/purge`: put back, or delete, these objects of one node."""

    node_id: NodeId
    object_ids: SomeIds


class Count(Body, frozen=True):
    """The answer to these, and to `POST /api/v1/trash/orphans`: of how many it is done."""

    objects: int
