"""Every route with every role, and callers who show no certificate or a stranger's."""

import ssl
from collections.abc import Iterator

import httpx
import pytest

from gateway.access import PUBLIC, ROLES
from tests.gateway.kit import Gateway, Identities, settings
from transfer import tls

API = "/api/v1"
SENDER, READER, NODE = {"ws-1"}, {"ws-1", "op-1"}, {"node-1"}
# Written out again, apart from the gateway's own table: operation, method, path, who may.
EXPECTED = [
    ("open_transfer", "POST", f"{API}/transfers", SENDER),
    ("renew_ticket", "POST", f"{API}/transfers/x/ticket", SENDER),
    ("offer", "POST", f"{API}/transfers/x/offer", SENDER),
    ("take_receipts", "POST", f"{API}/transfers/x/receipts", SENDER),
    ("commit", "POST", f"{API}/transfers/x/commit", SENDER),
    ("open_read", "POST", f"{API}/reads", READER),
    ("list_objects", "GET", f"{API}/objects", READER),
    ("list_studies", "GET", f"{API}/studies", READER),
    ("list_events", "GET", f"{API}/events", READER),
    ("status", "GET", f"{API}/status", READER),
    ("announce", "POST", f"{API}/announcements", NODE),
]
CALLERS = ("ws-1", "op-1", "node-1", "gateway-1")


@pytest.fixture(scope="module")
def gateway(identities: Identities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(identities, settings(identities, tmp_path_factory.mktemp("access")))
    yield running
    running.stop()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("operation", "method", "path", "allowed"), EXPECTED)
def test_route_and_role(
    gateway: Gateway, caller: str, operation: str, method: str, path: str, allowed: set[str]
) -> None:
    response = gateway.client(caller).request(method, path, content=b"{}" if method == "POST" else None)
    if caller in allowed:
        assert response.status_code != 403
    else:
        assert (response.status_code, response.json()["code"]) == (403, "unauthorised")


def test_table_has_every_operation_and_no_other() -> None:
    assert ROLES.keys() == {operation for operation, *_ in EXPECTED}


@pytest.mark.parametrize(("operation", "method", "path", "allowed"), EXPECTED)
def test_without_a_certificate(gateway: Gateway, operation: str, method: str, path: str, allowed: set[str]) -> None:
    response = gateway.client(None).request(method, path)
    assert (response.status_code, response.json()["code"]) == (403, "unauthorised")


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
