"""The routes of upkeep (`transfer.upkeep`): nothing but translation.

    POST /api/v1/drains          drain               Drain -> Drains, to operators and administrators, as the rest is
    GET  /api/v1/trash           list_trash          -> TrashPage
    POST /api/v1/trash/undo      undo_trash          SomeTrash -> Count
    POST /api/v1/trash/orphans   put_orphans_aside   -> Count, of the next few; again until it is 0
    POST /api/v1/trash/purge     purge_trash         SomeTrash -> Count, to administrators only

Every answer is given after what it says is durable. Refuses to do: deciding anything.
"""

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.datastructures import State
from litestar.params import JSONBody, QueryParameter

from gateway.access import peer_of
from gateway.audit import Audit
from gateway.liveness import Nodes
from gateway.repairer import Repairer
from gateway.upkeep import Upkeep
from transfer.errors import NotStoredError, ProtocolError, UnreachableError
from transfer.heartbeat import Heartbeat
from transfer.objects import is_object_id
from transfer.upkeep import Count, Drain, Drains, SomeTrash, TrashEntry, TrashPage

Caller = Request[Any, Any, State]
Name = Annotated[str, QueryParameter(max_length=64)]


def _operation(name: str) -> dict[str, Any]:
    """Return what names a route, to the table of roles and in the OpenAPI document."""
    return {"opt": {"operation": name}, "operation_id": name}


def upkeep_routes(repairer: Repairer, upkeep: Upkeep, nodes: Nodes, audit: Audit) -> list[Any]:
    """Return the routes."""

    def live(node_id: str) -> Heartbeat:
        if node_id not in nodes.node_ids:
            raise NotStoredError(f"`{node_id}` is not a node of this cluster; `fascicle status` lists them")
        found = upkeep.live().get(node_id)
        if found is None:
            raise UnreachableError(f"`{node_id}` is not heard now")
        return found

    @post("/api/v1/drains", status_code=200, **_operation("drain"))
    async def drain(request: Caller, data: JSONBody[Drain]) -> Drains:
        draining, by = repairer.draining, peer_of(request).name
        if data.undo:
            await draining.end(data.node_id)
        else:
            await draining.begin(data.node_id, nodes.node_ids)
        await audit.note("drain_undone" if data.undo else "drain_begun", by, about=data.node_id)
        return Drains(drains=draining.statuses())

    @get("/api/v1/trash", **_operation("list_trash"))
    async def list_trash(node: Name, after: Name = "") -> TrashPage:
        page = await upkeep.trash.page(live(node), _id(after) if after else b"")
        entries = [
            TrashEntry(object_id=one.object_id.hex(), reason=one.reason, stored_bytes=one.stored_bytes, due_s=one.due_s)
            for one in page.entries
        ]
        return TrashPage(entries=entries, next=None if page.complete else entries[-1].object_id)

    @post("/api/v1/trash/undo", status_code=200, **_operation("undo_trash"))
    async def undo_trash(request: Caller, data: JSONBody[SomeTrash]) -> Count:
        node = live(data.node_id)
        return Count(objects=await upkeep.trash.undo(node, list(map(_id, data.object_ids)), peer_of(request).name))

    @post("/api/v1/trash/purge", status_code=200, **_operation("purge_trash"))
    async def purge_trash(request: Caller, data: JSONBody[SomeTrash]) -> Count:
        node = live(data.node_id)
        return Count(objects=await upkeep.trash.purge(node, list(map(_id, data.object_ids)), peer_of(request).name))

    @post("/api/v1/trash/orphans", status_code=200, **_operation("put_orphans_aside"))
    async def put_orphans_aside(request: Caller) -> Count:
        return Count(objects=await upkeep.put_orphans_aside(peer_of(request).name))

    return [drain, list_trash, undo_trash, purge_trash, put_orphans_aside]


def _id(text: str) -> bytes:
    if not is_object_id(text):
        raise ProtocolError("an object id is 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)
