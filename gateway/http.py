"""The control plane's HTTP API: routes, bodies (`transfer.api`), and errors as `Problem` answers.

    POST /api/v1/transfers                   open_transfer    OpenTransfer -> Go
    POST /api/v1/transfers/{id}/ticket       renew_ticket     -> Go
    POST /api/v1/transfers/{id}/offer        offer            Offer -> Wanted
    POST /api/v1/transfers/{id}/receipts     take_receipts    Receipts -> Accepted
    POST /api/v1/transfers/{id}/commit       commit           Commit -> CommitReceipt
    POST /api/v1/reads                       open_read        OpenRead -> Go
    POST /api/v1/announcements               announce         Announcement -> CommitReceipt
    GET  /api/v1/objects, studies, status, events             -> Listing, Studies, Status, Events
    what `gateway.membership_http` and `gateway.upkeep_http` list
    GET  /health, /metrics, /openapi.json                     without a certificate

Every answer of 2xx is given after what it promises is durable. Refuses to do: anything but translate.
"""

import time
from functools import partial
from typing import Annotated, Any, cast

from litestar import Litestar, MediaType, Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec.structs import replace

from gateway import listing
from gateway.access import make_guard, peer_of, whoever
from gateway.audit import Audit
from gateway.damage import read_repairs
from gateway.database import Database
from gateway.events import EVENTS_MAX, list_events
from gateway.liveness import Nodes
from gateway.membership import Membership
from gateway.membership_http import membership_routes
from gateway.metrics import Metrics
from gateway.problems import make_handlers
from gateway.repairer import Repairer
from gateway.upkeep import Upkeep
from gateway.upkeep_http import upkeep_routes
from gateway.uploads import Uploads
from transfer.api import (
    Accepted,
    Announcement,
    Commit,
    CommitReceipt,
    Events,
    Go,
    Listing,
    Offer,
    OpenRead,
    OpenTransfer,
    Receipts,
    RepairStatus,
    Status,
    Studies,
    Wanted,
)
from transfer.errors import UnauthorisedError

Caller = Request[Any, Any, State]
Uid = Annotated[str | None, QueryParameter(max_length=64)]
Limit = Annotated[int, QueryParameter(ge=1, le=listing.OBJECTS_MAX)]


def _operation(name: str) -> dict[str, Any]:
    """Return what names a route, to the table of roles and in the OpenAPI document."""
    return {"opt": {"operation": name}, "operation_id": name}


def make_app(
    *,
    uploads: Uploads,
    database: Database,
    nodes: Nodes,
    repairer: Repairer,
    upkeep: Upkeep,
    metrics: Metrics,
    membership: Membership,
    audit: Audit,
    request_bytes_max: int,
) -> Litestar:
    """Return the application."""
    routes = [*_upload_routes(uploads), *_read_routes(uploads, database), *_open_routes(metrics)]
    routes += [_status_route(database, nodes, repairer, upkeep)]
    routes += [*membership_routes(membership, audit), *upkeep_routes(repairer, upkeep, nodes, audit)]

    return Litestar(
        routes,
        guards=[make_guard(membership.is_revoked)],
        exception_handlers=make_handlers(partial(_note_refusal, audit)),
        request_max_body_size=request_bytes_max,
        openapi_config=OpenAPIConfig(
            title="Fascicle gateway",
            version="1",
            path="/",
            render_plugins=[JsonRenderPlugin()],
            openapi_router=Router("/", route_handlers=[], opt={"operation": "openapi"}, include_in_schema=False),
        ),
        logging_config=None,
    )


def _upload_routes(uploads: Uploads) -> list[Any]:
    @post("/api/v1/transfers", status_code=200, **_operation("open_transfer"))
    async def open_transfer(request: Caller, data: JSONBody[OpenTransfer]) -> Go:
        return await uploads.open(data, peer_of(request))

    @post("/api/v1/transfers/{transfer_id:str}/ticket", status_code=200, **_operation("renew_ticket"))
    async def renew_ticket(request: Caller, transfer_id: FromPath[str]) -> Go:
        return await uploads.renew(transfer_id, peer_of(request))

    @post("/api/v1/transfers/{transfer_id:str}/offer", status_code=200, **_operation("offer"))
    async def offer(request: Caller, transfer_id: FromPath[str], data: JSONBody[Offer]) -> Wanted:
        return await uploads.offer(transfer_id, peer_of(request), data)

    @post("/api/v1/transfers/{transfer_id:str}/receipts", status_code=200, **_operation("take_receipts"))
    async def take_receipts(request: Caller, transfer_id: FromPath[str], data: JSONBody[Receipts]) -> Accepted:
        return await uploads.take_receipts(transfer_id, peer_of(request), data)

    @post("/api/v1/transfers/{transfer_id:str}/commit", status_code=200, **_operation("commit"))
    async def commit(request: Caller, transfer_id: FromPath[str], data: JSONBody[Commit]) -> Response[CommitReceipt]:
        return _json(await uploads.commit(transfer_id, peer_of(request), data))

    @post("/api/v1/announcements", status_code=200, **_operation("announce"))
    async def announce(request: Caller, data: JSONBody[Announcement]) -> Response[CommitReceipt]:
        return _json(await uploads.announce(peer_of(request), data))

    return [open_transfer, renew_ticket, offer, take_receipts, commit, announce]


def _read_routes(uploads: Uploads, database: Database) -> list[Any]:
    @post("/api/v1/reads", status_code=200, **_operation("open_read"))
    async def open_read(request: Caller, data: JSONBody[OpenRead]) -> Go:
        return await uploads.open_read(data, peer_of(request))

    @get("/api/v1/objects", **_operation("list_objects"))
    async def list_objects(
        study: Uid = None,
        series: Uid = None,
        object_id: Annotated[str | None, QueryParameter(name="object", max_length=64)] = None,
        after: Uid = None,
        limit: Limit = listing.OBJECTS_MAX,
    ) -> Listing:
        wanted = listing.ObjectFilter(study=study, series=series, object=object_id, after=after, limit=limit)
        return await database.read(lambda connection: listing.list_objects(connection, wanted))

    @get("/api/v1/studies", **_operation("list_studies"))
    async def list_studies(after: Uid = None, limit: Limit = listing.STUDIES_MAX) -> Studies:
        return await database.read(lambda connection: listing.list_studies(connection, after, limit))

    @get("/api/v1/events", **_operation("list_events"))
    async def events(after: Annotated[int, QueryParameter(ge=0, le=1 << 62)] = 0, limit: Limit = EVENTS_MAX) -> Events:
        return await database.read(lambda connection: list_events(connection, after, limit))

    return [open_read, list_objects, list_studies, events]


def _status_route(database: Database, nodes: Nodes, repairer: Repairer, upkeep: Upkeep) -> Any:
    @get("/api/v1/status", **_operation("status"))
    async def status() -> Status:
        totals, transfers, repairs = await database.read(
            lambda connection: (
                listing.read_totals(connection),
                listing.read_transfers(connection),
                read_repairs(connection),
            )
        )
        return Status(
            **totals,
            nodes=[
                replace(each, trash_bytes=upkeep.trash.bytes_of(each.node_id))
                for each in nodes.statuses(time.monotonic())
            ],
            transfers=transfers,
            repairs=RepairStatus(
                **repairs,
                short_objects=repairer.short,
                waiting_objects=repairer.waiting,
                orphan_objects=repairer.stocktake.orphans.objects,
                orphan_bytes=repairer.stocktake.orphans.bytes,
                gone_nodes=sorted(repairer.watch.gone),
                draining_nodes=sorted(repairer.draining.node_ids),
                drains=repairer.draining.statuses(),
                trash_objects=upkeep.trash.sums[0],
                trash_bytes=upkeep.trash.sums[1],
                orphans_wait=upkeep.orphans_wait,
                twin_nodes=sorted(nodes.twins(time.monotonic())),
                unlisted_folders=repairer.stocktake.unlisted,
            ),
        )

    return status


def _open_routes(metrics: Metrics) -> list[Any]:
    @get("/health", media_type=MediaType.TEXT, sync_to_thread=False, **_operation("health"))
    def health() -> str:
        return "ok\n"

    @get("/metrics", media_type=MediaType.TEXT, sync_to_thread=False, **_operation("metrics"))
    def show_metrics() -> bytes:
        return metrics.text()

    return [health, show_metrics]


def _note_refusal(audit: Audit, request: Caller, error: UnauthorisedError) -> None:
    name, role = whoever(request)
    handler = request.scope.get("route_handler")
    audit.refused(str(handler.opt.get("operation", "")) if handler else "", name, role, error.code)


def _json(body: bytes) -> Response[CommitReceipt]:
    """Return a body that is JSON already, so that a stored answer is given again bit for bit."""
    return Response(cast(CommitReceipt, body), media_type=MediaType.JSON)
