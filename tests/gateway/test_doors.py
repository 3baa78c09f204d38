"""The gateway and a crowd: strangers are bounded and give way, callers keep their places, the rest hear when to."""

import asyncio
import errno
import socket
import ssl
import time
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.acceptor import Acceptor
from gateway.entrance import Bodies
from gateway.httpserver import make_doors
from gateway.metrics import Metrics
from gateway.settings import GatewaySettings
from tests.gateway.kit import TRANSFERS, Gateway, Identities, post, settings
from transfer import places, tls
from transfer.descriptors import OTHERS
from transfer.doors import Doors
from transfer.errors import BusyError
from transfer.lobby import Lobby
from transfer.membership import Revoke
from transfer.places import Places

STRANGERS = 12  # six of one address
HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    config = settings(
        identities, tmp_path / "gateway", connections_max=4, party_connections_max=3, strangers_max=STRANGERS
    )
    running = Gateway(identities, config)
    yield running
    running.stop()


def connect(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=10)


def secured(gateway: Gateway, name: str | None) -> ssl.SSLSocket:
    context = gateway.identities.context(name) if name else anonymous(gateway)
    return context.wrap_socket(connect(gateway), server_hostname="127.0.0.1")


def anonymous(gateway: Gateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.identities["ws-1"] / "ca.pem"))


def is_closed(flow: socket.socket) -> bool:
    try:
        return flow.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True


def metric(gateway: Gateway, name: str) -> float:
    with httpx.Client(base_url=f"https://127.0.0.1:{gateway.port}", verify=anonymous(gateway), trust_env=False) as one:
        text = one.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


def silent_ones(gateway: Gateway, kind: str) -> socket.socket:
    if kind == "nothing":
        return connect(gateway)
    if kind == "half a handshake":
        flow = connect(gateway)
        flow.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        return flow
    whole = secured(gateway, None if kind == "no certificate" else "ws-2")
    if kind == "half a request":
        whole.sendall(HEAD)
    return whole


@pytest.mark.parametrize("kind", ["nothing", "half a handshake", "a handshake", "no certificate", "half a request"])
def test_those_who_say_nothing_give_way_and_callers_are_served(gateway: Gateway, kind: str) -> None:
    known = gateway.client("ws-1")
    assert known.get("/api/v1/objects").status_code == 200
    crowd = [silent_ones(gateway, kind) for _ in range(2 * STRANGERS)]
    assert all(is_closed(flow) for flow in crowd[:STRANGERS])
    assert known.get("/api/v1/objects").status_code == 200
    with httpx.Client(base_url=known.base_url, verify=gateway.identities.context("op-1"), trust_env=False) as newcomer:
        assert newcomer.get("/api/v1/objects").status_code == 200
    assert metric(gateway, "fascicle_gateway_turned_out_total") >= STRANGERS
    for flow in crowd:
        flow.close()


def half_a_body(gateway: Gateway, name: str) -> ssl.SSLSocket:
    """Keep a place at work: a request that was answered, so that the place is had, and one whose body does not come."""
    flow = secured(gateway, name)
    flow.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert flow.recv(4096).startswith(b"HTTP/1.1 200")
    flow.sendall(f"POST {TRANSFERS} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
    return flow


def eventually(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not probe():
        assert time.monotonic() < deadline


def test_whoever_finds_no_place_hears_when_to_come_back(gateway: Gateway) -> None:
    busy = [half_a_body(gateway, "ws-1") for _ in range(3)]

    def refused() -> bool:
        with httpx.Client(
            base_url=f"https://127.0.0.1:{gateway.port}", verify=gateway.identities.context("ws-1"), trust_env=False
        ) as late:
            answer = late.get("/api/v1/objects")
        if answer.status_code == 200:  # the others have not all been counted yet
            return False
        assert (answer.status_code, answer.headers["Retry-After"], answer.headers["Connection"]) == (503, "1", "close")
        assert answer.json() == {
            "code": "busy",
            "message": "you have 3 connections here, as many as one party may; try again in 1 s",
            "retryable": True,
        }
        return True

    eventually(refused)
    assert gateway.client("op-1").get("/api/v1/objects").status_code == 200  # another party
    assert gateway.client(None).get("/health").status_code == 200
    assert metric(gateway, "fascicle_gateway_refused_total") >= 1
    for flow in busy:
        flow.close()
    eventually(lambda: gateway.client("ws-1").get("/api/v1/objects").status_code == 200)


def test_who_is_revoked_takes_no_place(gateway: Gateway) -> None:
    for name in ("node-1", "ws-2"):
        post(gateway.client("admin-1"), "/api/v1/revocations", Revoke(name=name))
    crowd = [half_a_body(gateway, name) for name in ("node-1", "ws-2") for _ in range(3)]
    assert gateway.client("op-1").get("/api/v1/objects").status_code == 200
    for flow in crowd:
        flow.close()


def test_a_place_ends_with_the_first_answer_after_its_party_is_revoked(gateway: Gateway) -> None:
    caller = gateway.client("ws-2")
    assert caller.get("/api/v1/objects").status_code == 200
    post(gateway.client("admin-1"), "/api/v1/revocations", Revoke(name="ws-2"))
    answer = caller.get("/api/v1/objects")
    assert (answer.status_code, answer.headers["Connection"]) == (403, "close")


def test_a_node_takes_no_more_places_than_one_party_may(gateway: Gateway) -> None:
    busy = [half_a_body(gateway, "node-1") for _ in range(3)]
    with httpx.Client(
        base_url=f"https://127.0.0.1:{gateway.port}", verify=gateway.identities.context("node-1"), trust_env=False
    ) as late:
        answer = late.get("/api/v1/trust")
    assert (answer.status_code, answer.json()["message"][:23]) == (503, "you have 3 connections ")
    assert gateway.client("node-2").get("/api/v1/trust").status_code == 200
    for flow in busy:
        flow.close()


def test_connections_that_rest_give_way_to_callers(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "REST_S", 0.0)
    resting = [secured(gateway, name) for name in ("ws-1", "ws-1", "ws-2", "ws-2")]
    for flow in resting:
        flow.sendall(b"GET /api/v1/objects HTTP/1.1\r\nHost: x\r\n\r\n")
        assert flow.recv(4096).startswith(b"HTTP/1.1 200")
    assert gateway.client("op-1").get("/api/v1/objects").status_code == 200
    rest = resting[0].recv(4096)
    assert rest == b"" or is_closed(resting[0])
    resting[3].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP/1.1 200" in resting[3].recv(4096) + resting[3].recv(4096)
    for flow in resting:
        flow.close()


def test_without_a_certificate_no_large_body_is_taken(gateway: Gateway) -> None:
    answer = gateway.client(None).post("/api/v1/enrolments", content=b" " * (100 << 10))
    assert (answer.status_code, answer.json()["code"]) == (400, "protocol")
    assert "without a certificate" in answer.json()["message"]


def test_bodies_in_memory_have_one_budget_and_each_party_half_of_it() -> None:
    bodies = Bodies(100)
    assert [bodies.take("a", 50), bodies.take("a", 1), bodies.take("b", 40), bodies.take("c", 11)] == [1, 0, 1, 0]
    bodies.give_back("a", 50)
    assert [bodies.bytes, bodies.take("c", 11), bodies.take("a", 49), bodies.take("a", 1)] == [40, 1, 1, 0]


class Alone(asyncio.Protocol):
    """A connection that was taken in."""


async def accept_after_failures(context: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        doors = Doors(Lobby(1, 1), Places(1, 1))
        acceptor = Acceptor(listener, context, doors, lambda guest: Alone())
        with socket.create_connection(listener.getsockname()):
            async with asyncio.timeout(10):
                while not len(doors.lobby):
                    await asyncio.sleep(0.01)
        acceptor.close()
        await acceptor.wait_closed()


def test_no_descriptors_left_ends_nothing(identities: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []
    accept = BaseSelectorEventLoop.sock_accept

    async def failing(self: BaseSelectorEventLoop, listener: socket.socket) -> tuple[socket.socket, Any]:
        tries.append(self.time())
        if len(tries) <= 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(self, listener)

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_accept", failing)
    asyncio.run(accept_after_failures(tls.server_context(identities["gateway-1"], require_client=False)))
    assert tries[3] - tries[0] >= 0.3  # it waits between, and does not spin
    assert len(tries) == 5


def test_what_was_just_accepted_is_closed_when_the_listener_is(identities: Identities) -> None:
    async def close_at_once(context: ssl.SSLContext) -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            doors = Doors(Lobby(1, 1), Places(1, 1))
            acceptor = Acceptor(listener, context, doors, lambda guest: Alone())
            entered = doors.enter

            def enter(*given: Any) -> Any:
                asyncio.get_running_loop().call_soon(acceptor.close)  # before the handshake's first step
                return entered(*given)

            doors.enter = enter  # type: ignore[method-assign]  # for this test
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            found = await asyncio.wait_for(reader.read(), 10)
            await acceptor.wait_closed()
            writer.close()
            assert len(doors.lobby) == 0
            return found

    assert asyncio.run(close_at_once(tls.server_context(identities["gateway-1"], require_client=False))) == b""


@pytest.mark.parametrize(
    ("limit", "known", "strangers"), [(1 << 20, 1024, 512), (OTHERS + 768, 512, 256), (OTHERS + 96, 64, 32)]
)
def test_places_fit_the_descriptors_that_there_are(
    identities: Identities, tmp_path: Path, limit: int, known: int, strangers: int
) -> None:
    config: GatewaySettings = settings(identities, tmp_path, party_connections_max=1024)
    doors = make_doors(config, limit, Metrics())
    for number in range(2000):
        doors.enter(f"10.0.{number // 250}.{number % 250}", lambda: None)
    assert len(doors.lobby) == strangers
    admitted = 0
    with pytest.raises(BusyError):
        for number in range(2000):
            doors.enter("10.1.0.1", lambda: None).admit(f"party {number}", ours=True)
            admitted += 1
    assert admitted == known
