"""The routes of membership (`transfer.membership`): nothing but translation.

    GET  /api/v1/authority      show_authority      the authority's certificate (PEM), without a certificate
    POST /api/v1/enrolments     enrol               Enrol -> Enrolled, without a certificate
    POST /api/v1/renewals       renew_certificate   -> Renewed
    GET  /api/v1/trust          read_trust          -> Trust, to nodes
    POST /api/v1/invitations    invite              Invite -> Invitation, to administrators, as the rest is
    POST /api/v1/revocations    revoke              Revoke -> Done
    POST /api/v1/domains        tell_domain         TellDomain -> Done
    POST /api/v1/keys           rotate_keys         RotateKeys -> Done
    GET  /api/v1/parties        list_parties        -> Parties, to operators too
    GET  /api/v1/audit/head     read_audit_head     -> AuditHead, to operators too

Every answer is given after what it says is durable. Refuses to do: deciding anything.
"""

from typing import Any

from litestar import MediaType, Request, get, post
from litestar.datastructures import State
from litestar.params import JSONBody

from gateway.access import certificate_of, peer_of
from gateway.audit import Audit
from gateway.membership import Membership
from transfer.membership import (
    AuditHead,
    Done,
    Enrol,
    Enrolled,
    Invitation,
    Invite,
    Parties,
    Renewed,
    Revoke,
    RotateKeys,
    TellDomain,
    Trust,
)

Caller = Request[Any, Any, State]


def _operation(name: str) -> dict[str, Any]:
    """Return what names a route, to the table of roles and in the OpenAPI document."""
    return {"opt": {"operation": name}, "operation_id": name}


def membership_routes(membership: Membership, audit: Audit) -> list[Any]:
    """Return the routes."""

    @get("/api/v1/authority", media_type=MediaType.TEXT, sync_to_thread=False, **_operation("show_authority"))
    def show_authority() -> str:
        return membership.authority_pem()

    @post("/api/v1/enrolments", status_code=200, **_operation("enrol"))
    async def enrol(data: JSONBody[Enrol]) -> Enrolled:
        return await membership.enrol(data)

    @post("/api/v1/renewals", status_code=200, **_operation("renew_certificate"))
    async def renew_certificate(request: Caller) -> Renewed:
        return await membership.renew(certificate_of(request), peer_of(request))

    @get("/api/v1/trust", sync_to_thread=False, **_operation("read_trust"))
    def read_trust() -> Trust:
        return membership.trust()

    @post("/api/v1/invitations", status_code=200, **_operation("invite"))
    async def invite(request: Caller, data: JSONBody[Invite]) -> Invitation:
        return await membership.invite(data, peer_of(request))

    @post("/api/v1/revocations", status_code=200, **_operation("revoke"))
    async def revoke(request: Caller, data: JSONBody[Revoke]) -> Done:
        await membership.revoke(data.name, peer_of(request))
        return Done()

    @post("/api/v1/domains", status_code=200, **_operation("tell_domain"))
    async def tell_domain(request: Caller, data: JSONBody[TellDomain]) -> Done:
        await membership.tell_domain(data, peer_of(request))
        return Done()

    @post("/api/v1/keys", status_code=200, **_operation("rotate_keys"))
    async def rotate_keys(request: Caller, data: JSONBody[RotateKeys]) -> Done:
        await membership.rotate(peer_of(request), revoke_tickets=data.revoke_tickets)
        return Done()

    @get("/api/v1/parties", sync_to_thread=False, **_operation("list_parties"))
    def list_parties() -> Parties:
        return membership.parties()

    @get("/api/v1/audit/head", sync_to_thread=False, **_operation("read_audit_head"))
    def read_audit_head() -> AuditHead:
        head = audit.head
        return AuditHead(count=head.count, hash=head.hash)

    upkeep = [read_trust, invite, revoke, rotate_keys, list_parties, read_audit_head]
    return [show_authority, enrol, renew_certificate, tell_domain, *upkeep]
