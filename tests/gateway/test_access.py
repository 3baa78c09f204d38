"""Every route with every role, and callers who show no certificate or a stranger's."""

import contextlib
import ssl
from collections.abc import Iterator

import httpx
import pytest

from gateway.access import PUBLIC, ROLES, authorise
from tests.gateway.kit import Gateway, Identities, settings
from tests.gateway.routes import routes
from transfer import tls
from transfer.errors import UnauthorisedError
from transfer.tls import Peer

API = "/api/v1"
CALLERS = {
    "workstation": "ws-1",
    "node": "node-1",
    "operator": "op-1",
    "administrator": "admin-1",
    "gateway": "gateway-1",
    "unknown": "janitor-1",  # a certificate of this cluster with a role that there is not
    "none": None,
}
OPEN = set(CALLERS)
SENDER, READER, NODE = {"workstation"}, {"workstation", "operator"}, {"node"}
WATCHER, ADMINISTRATOR = {*READER, "administrator"}, {"administrator"}
# Written out again, apart from the gateway's own table: method, path, operation, who may.
EXPECTED = {
    ("POST", f"{API}/transfers"): ("open_transfer", SENDER),
    ("POST", f"{API}/transfers/{{transfer_id}}/ticket"): ("renew_ticket", SENDER),
    ("POST", f"{API}/transfers/{{transfer_id}}/offer"): ("offer", SENDER),
    ("POST", f"{API}/transfers/{{transfer_id}}/receipts"): ("take_receipts", SENDER),
    ("POST", f"{API}/transfers/{{transfer_id}}/commit"): ("commit", SENDER),
    ("POST", f"{API}/reads"): ("open_read", READER),
    ("GET", f"{API}/objects"): ("list_objects", READER),
    ("GET", f"{API}/studies"): ("list_studies", READER),
    ("GET", f"{API}/events"): ("list_events", WATCHER),
    ("GET", f"{API}/status"): ("status", WATCHER),
    ("POST", f"{API}/announcements"): ("announce", NODE),
    ("GET", f"{API}/trust"): ("read_trust", NODE),
    ("POST", f"{API}/keys"): ("rotate_keys", ADMINISTRATOR),
    ("POST", f"{API}/invitations"): ("invite", ADMINISTRATOR),
    ("POST", f"{API}/revocations"): ("revoke", ADMINISTRATOR),
    ("POST", f"{API}/domains"): ("tell_domain", ADMINISTRATOR),
    ("GET", f"{API}/parties"): ("list_parties", {"operator", "administrator"}),
    ("GET", f"{API}/audit/head"): ("read_audit_head", {"operator", "administrator"}),
    ("POST", f"{API}/drains"): ("drain", {"operator", "administrator"}),
    ("GET", f"{API}/trash"): ("list_trash", {"operator", "administrator"}),
    ("POST", f"{API}/trash/undo"): ("undo_trash", {"operator", "administrator"}),
    ("POST", f"{API}/trash/orphans"): ("put_orphans_aside", {"operator", "administrator"}),
    ("POST", f"{API}/trash/purge"): ("purge_trash", ADMINISTRATOR),
    ("POST", f"{API}/renewals"): ("renew_certificate", {*WATCHER, "node"}),
    ("POST", f"{API}/enrolments"): ("enrol", OPEN),
    ("GET", f"{API}/authority"): ("show_authority", OPEN),
    ("GET", "/health"): ("health", OPEN),
    ("GET", "/metrics"): ("metrics", OPEN),
    ("GET", "/openapi.json"): ("openapi", OPEN),
    ("GET", "/"): ("openapi", OPEN),  # the framework's own, beside the document: nothing of ours is there
    ("GET", "/{path}"): ("openapi", OPEN),
}


ROUTES = routes()


@pytest.fixture(scope="module")
def gateway(identities: Identities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(identities, settings(identities, tmp_path_factory.mktemp("access")))
    yield running
    running.stop()


@pytest.mark.parametrize(("method", "path", "operation"), ROUTES, ids=[f"{row[0]}-{row[2]}" for row in ROUTES])
def test_a_route_has_its_entry_here_and_in_the_gateway_s_table(method: str, path: str, operation: str) -> None:
    assert (method, path) in EXPECTED, "a new route: say here who may call it"
    named, allowed = EXPECTED[(method, path)]
    assert operation == named
    assert ROLES.get(operation) == (None if allowed is OPEN else frozenset(allowed))
    assert (operation in PUBLIC) == (allowed is OPEN)


def test_nothing_else_is_in_the_tables() -> None:
    assert {(method, path) for method, path, _ in ROUTES} == EXPECTED.keys()
    assert ROLES.keys() | PUBLIC == {operation for operation, _ in EXPECTED.values()}
    assert not ROLES.keys() & PUBLIC


@pytest.mark.parametrize("role", CALLERS)
@pytest.mark.parametrize(("method", "path", "operation"), ROUTES, ids=[f"{row[0]}-{row[2]}" for row in ROUTES])
def test_route_and_role(gateway: Gateway, role: str, method: str, path: str, operation: str) -> None:
    """Over TLS: a body that is none is refused by the route itself, so that no 403 means that the caller was let in."""
    content = b"not JSON" if method == "POST" else None
    response = gateway.client(CALLERS[role]).request(method, path.format(transfer_id="x", path="x"), content=content)
    if role in EXPECTED[(method, path)][1]:
        assert response.status_code != 403
    else:
        assert (response.status_code, response.json()["code"]) == (403, "unauthorised")


@pytest.mark.parametrize("role", CALLERS)
@pytest.mark.parametrize(("method", "path", "operation"), ROUTES, ids=[f"{row[0]}-{row[2]}" for row in ROUTES])
def test_the_function_and_revocation(role: str, method: str, path: str, operation: str) -> None:
    caller = CALLERS[role]
    peer = None if caller is None else Peer(caller, "janitor" if role == "unknown" else role, "0" * 64, 5)
    allowed = EXPECTED[(method, path)][1]
    for is_revoked, may in ((False, role in allowed), (True, allowed is OPEN)):
        judged = pytest.raises(UnauthorisedError) if not may else contextlib.nullcontext()
        with judged:
            authorise(operation, peer, is_revoked=lambda _, answer=is_revoked: answer)


@pytest.mark.parametrize("operation", ["", "a_new_route", "Status", "status ", "openapi.json"])
@pytest.mark.parametrize("role", [role for role in CALLERS if role != "none"])
def test_a_route_that_no_table_lists_is_nobody_s(operation: str, role: str) -> None:
    with pytest.raises(UnauthorisedError):
        authorise(operation, Peer("x", role, "0" * 64), is_revoked=lambda _: False)


def test_health_metrics_and_the_document_need_no_certificate(gateway: Gateway) -> None:
    client = gateway.client(None)
    assert client.get("/health").text == "ok\n"
    assert 'fascicle_gateway_nodes{state="unknown"} 3.0' in client.get("/metrics").text
    document = client.get("/openapi.json").json()
    operations = {method["operationId"] for path in document["paths"].values() for method in path.values()}
    assert operations == ROLES.keys() | (PUBLIC - {"openapi"})


def test_certificate_of_another_authority_is_refused_by_tls(gateway: Gateway, identities: Identities) -> None:
    context = tls.client_context(identities["stranger"])
    context.load_verify_locations(cafile=str(identities["ws-1"] / "ca.pem"))
    with (
        httpx.Client(verify=context, trust_env=False) as client,
        pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)),
    ):
        client.get(f"https://127.0.0.1:{gateway.port}/health")


def test_older_tls_is_refused(gateway: Gateway, identities: Identities) -> None:
    context = tls.client_context(identities["ws-1"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with httpx.Client(verify=context, trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(f"https://127.0.0.1:{gateway.port}/health")


def test_unknown_path_is_a_problem(gateway: Gateway) -> None:
    response = gateway.client("ws-1").get("/api/v1/nothing")
    assert (response.status_code, response.json()["code"]) == (404, "not_stored")
