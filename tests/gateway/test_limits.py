"""What a caller controls has bounds: bodies, heads, pages, counts; nonsense closes the connection."""

import json
import logging
import socket
import ssl
from collections.abc import Iterator

import msgspec
import pytest

from tests.gateway.kit import TRANSFERS, Gateway, Identities, get, settings

OBJECT_ID = "0" * 64


@pytest.fixture(scope="module")
def gateway(identities: Identities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = settings(
        identities,
        tmp_path_factory.mktemp("limits"),
        request_bytes_max=1 << 16,
        header_bytes_max=1 << 13,
        header_timeout_s=0.3,
        body_timeout_s=0.5,
    )
    running = Gateway(identities, config)
    yield running
    running.stop()


@pytest.fixture
def flow(gateway: Gateway, identities: Identities) -> Iterator[ssl.SSLSocket]:
    raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    with identities.context("ws-1").wrap_socket(raw, server_hostname="127.0.0.1") as secured:
        yield secured


def read_all(flow: socket.socket) -> bytes:
    """Read until the other end closes, however it does."""
    read = bytearray()
    try:
        while piece := flow.recv(65536):
            read += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return bytes(read)


def test_body_over_the_limit_is_refused(gateway: Gateway) -> None:
    response = gateway.client("ws-1").post(f"{TRANSFERS}/x/offer", content=b" " * (1 << 17))
    assert (response.status_code, response.json()["code"]) == (413, "protocol")


def test_body_that_never_ends_is_refused(gateway: Gateway, flow: ssl.SSLSocket) -> None:
    head = f"POST {TRANSFERS}/x/offer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    flow.sendall(head + b"8000\r\n" + b" " * 0x8000 + b"\r\n" + b"8001\r\n" + b" " * 0x8001 + b"\r\n")
    assert flow.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"objects": 1, "unknown": 2}',
        b'{"replicas": 0}',
        b'{"replicas": 17}',
        b'{"bytes": -1}',
        b'{"bytes": 1e99}',
        b'{"objects": 99999999999999999999}',
        b"\xff\xfe",
    ],
)
def test_body_that_does_not_fit_is_a_problem(gateway: Gateway, body: bytes) -> None:
    response = gateway.client("ws-1").post(TRANSFERS, content=body)
    assert (response.status_code, response.json()["code"]) == (400, "protocol")


@pytest.mark.parametrize(
    "item",
    [
        {"object_id": "ABC", "size_bytes": 1},
        {"object_id": OBJECT_ID + "\n", "size_bytes": 1},
        {"object_id": OBJECT_ID, "size_bytes": -1},
        {"object_id": OBJECT_ID, "size_bytes": 1 << 60},
        {"object_id": OBJECT_ID, "size_bytes": 1, "name": "\ud800"},
    ],
)
def test_offer_that_does_not_fit_is_a_problem(gateway: Gateway, item: dict) -> None:
    response = gateway.client("ws-1").post(f"{TRANSFERS}/x/offer", content=json.dumps({"objects": [item]}).encode())
    assert response.status_code in (400, 404)
    assert response.json()["code"] in ("protocol", "not_stored")


def test_too_many_offered_at_once_is_a_problem(gateway: Gateway) -> None:
    body = msgspec.json.encode({"objects": [{"object_id": OBJECT_ID, "size_bytes": 1}] * 1025})
    assert len(body) > 1 << 16  # so the small limit of this gateway may speak first
    assert gateway.client("ws-1").post(f"{TRANSFERS}/x/offer", content=body).status_code in (400, 413)


@pytest.mark.parametrize("wanted", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after": "x"}, {"object": "../x"}])
def test_page_that_does_not_fit_is_a_problem(gateway: Gateway, wanted: dict) -> None:
    assert get(gateway.client("op-1"), "/api/v1/objects", status=400, **wanted)["code"] == "protocol"


@pytest.mark.parametrize("garbage", [b"\x00\x00\x00\x05hello" * 100, b"\xff" * 1000, b"GET\r\n\r\n", b"HELO x\r\n" * 9])
def test_garbage_inside_tls_closes_the_connection(flow: ssl.SSLSocket, garbage: bytes) -> None:
    flow.sendall(garbage)
    assert read_all(flow)[:12] in (b"", b"HTTP/1.1 400")


@pytest.mark.parametrize("garbage", [b"\x00" * 1000, b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"])
def test_garbage_instead_of_tls_closes_the_connection(gateway: Gateway, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        raw.sendall(garbage)
        raw.shutdown(socket.SHUT_WR)
        assert b"200" not in read_all(raw)


def test_head_that_never_ends_closes_the_connection(flow: ssl.SSLSocket) -> None:
    with pytest.raises((ConnectionError, ssl.SSLError)):
        flow.sendall(b"GET / HTTP/1.1\r\n")
        for number in range(100_000):
            flow.sendall(f"X-{number}: {'y' * 1000}\r\n".encode())


@pytest.mark.parametrize("beginning", [b"", b"GET /health HT"])
def test_caller_that_falls_silent_in_its_head_is_dropped(flow: ssl.SSLSocket, beginning: bytes) -> None:
    flow.sendall(beginning)
    assert read_all(flow) == b""


@pytest.mark.parametrize("path", ["transfers", "enrolments"])  # the second is open to everybody
@pytest.mark.parametrize("body", [b"Content-Length: 99\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"])
def test_caller_that_falls_silent_in_its_body_is_dropped(flow: ssl.SSLSocket, path: str, body: bytes) -> None:
    flow.sendall(f"POST /api/v1/{path} HTTP/1.1\r\nHost: x\r\n".encode() + body)
    assert read_all(flow) == b""


def test_caller_that_goes_away_is_no_fault_of_the_gateway_s(gateway: Gateway, identities: Identities) -> None:
    for _ in range(5):
        raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        with identities.context("ws-1").wrap_socket(raw, server_hostname="127.0.0.1") as leaving:
            leaving.sendall(b"POST /api/v1/transfers HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    for _ in range(100):
        text = gateway.client(None).get("/metrics").text
        if 'operation="open_transfer",status="400"' in text:
            break
    assert 'operation="open_transfer",status="400"' in text
    assert 'status="500"' not in text


def test_caller_that_goes_away_with_requests_behind_each_other_leaves_nothing_in_the_log(
    gateway: Gateway, identities: Identities, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that is being answered wrote on, for which asyncio's TLS has an AttributeError (`_write_appdata`)."""
    for _ in range(30):
        raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        with identities.context("ws-1").wrap_socket(raw, server_hostname="127.0.0.1") as leaving:
            leaving.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    assert gateway.client(None).get("/health").text == "ok\n"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_many_requests_on_one_connection(flow: ssl.SSLSocket) -> None:
    for _ in range(20):  # of 2 KiB each: the limit on heads is for each
        flow.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 2000 + b"\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok\n"):
            answer += flow.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200")


def test_gateway_still_serves(gateway: Gateway) -> None:
    assert gateway.client(None).get("/health").text == "ok\n"


@pytest.mark.parametrize("body", [b"[" * 30_000, b'{"x": ' + b"[" * 30_000, b'{"x": ' * 5_000])
def test_a_body_nested_too_deep_is_the_sender_s_mistake(shared, body: bytes) -> None:
    gateway, _ = shared
    for path in ("/api/v1/transfers", "/api/v1/reads", "/api/v1/enrolments"):
        answer = gateway.client("ws-1").post(path, content=body)
        assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (400, "protocol", False)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/v1/transfers", b'{"objects": "\xff\xfe"}'), ("/api/v1/reads", b'{"rights": ["\xc3"]}')],
)
def test_text_that_is_not_utf_8_is_the_sender_s_mistake(shared, path: str, body: bytes) -> None:
    gateway, _ = shared
    answer = gateway.client("ws-1").post(path, content=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (400, "protocol", False)


@pytest.mark.parametrize("host", [":ost:ost", "a:b", "[::", "", "a" * 2000])
def test_a_host_that_is_no_address_is_nobody_s_fault(gateway: Gateway, host: str) -> None:
    """The framework makes a URL of it where it says what a request lacks."""
    answer = gateway.client("admin-1").get("/api/v1/trash", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "protocol")
    assert "node" in answer.json()["message"]
