"""The trio client against a real gateway, and against servers that misbehave."""

import ssl
import time

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from tests.gateway.kit import Gateway, Identities, Node, claim, images
from transfer import client as client_module
from transfer import tls
from transfer.api import Announcement, Offered, OpenTransfer
from transfer.client import GatewayClient
from transfer.errors import BusyError, ConflictError, NotStoredError, ProtocolError, UnauthorisedError, UnreachableError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def ok(body: bytes) -> bytes:
    return HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_every_call(gateway: Gateway, nodes: list[Node], identities: Identities) -> None:
    sent = images(3)
    async with GatewayClient(identities.credentials("ws-1", gateway.port), patience_s=5) as client:
        go = await client.open_transfer(OpenTransfer(replicas=1))
        wanted = await client.offer(go.transfer_id, [image.offered() for image in sent])
        assert wanted.wanted == [image.object_id for image in sent]
        assert (await client.renew(go.transfer_id)).transfer_id == go.transfer_id
        signed = nodes[0].sign([image.receipt("node-1") for image in sent])
        assert (await client.receipts(go.transfer_id, [signed])).objects == 3
        receipt = await client.commit(go.transfer_id, claim(sent))
        assert receipt == await client.commit(go.transfer_id, claim(sent))
        listed = [stored.object_id async for stored in client.iterate_objects(study="1.2.3")]
        assert listed == sorted(image.object_id for image in sent)
        assert [study.instances for study in (await client.list_studies()).studies] == [3]
        assert [event.sequence for event in (await client.list_events(after=1)).events] == [2]
        assert (await client.status()).studies == 1
        assert len((await client.open_read(["get"])).nodes) == 3
    async with GatewayClient(identities.credentials("node-1", gateway.port), patience_s=5) as client:
        announced = await client.announce(
            Announcement(receipts=[nodes[0].sign([images(1, seed="n")[0].receipt("node-1")])], names=[])
        )
        assert announced.objects == 1


async def test_the_first_offer_is_made_when_the_connection_stands_and_anew_for_each_attempt(
    gateway: Gateway, nodes: list[Node], identities: Identities
) -> None:
    sent = images(3)
    times: list[int] = []
    nodes[0].refuses = nodes[1].refuses = nodes[2].refuses = True

    def first() -> list[Offered]:
        times.append(len(times))
        if len(times) == 2:
            nodes[0].refuses = False
        return [image.offered() for image in sent[: len(times)]]

    async with GatewayClient(identities.credentials("ws-1", gateway.port), patience_s=20) as client:
        opening = client.open_transfer(OpenTransfer(), first)
        assert times == []
        go = await opening
        assert times == [0, 1]
        assert [node.node_id for node in go.nodes] == ["node-1"]
        signed = nodes[0].sign([image.receipt("node-1") for image in sent[:2]], go.transfer_id)
        await client.commit(go.transfer_id, replace(claim(sent[:2]), receipts=[signed]))


async def test_errors_are_the_gateways(gateway: Gateway, identities: Identities) -> None:
    async with GatewayClient(identities.credentials("ws-1", gateway.port), patience_s=0) as client:
        with pytest.raises(BusyError):
            await client.open_transfer(OpenTransfer())
        with pytest.raises(NotStoredError):
            await client.renew("../../status")
        with pytest.raises(ProtocolError):
            await client.list_objects(object_id="x")
    async with GatewayClient(identities.credentials("node-1", gateway.port), patience_s=60) as client:
        with pytest.raises(UnauthorisedError):
            await client.status()


async def test_pages_follow_each_other(gateway: Gateway, nodes: list[Node], identities: Identities) -> None:
    sent = images(23)
    async with GatewayClient(identities.credentials("ws-1", gateway.port), patience_s=5) as client:
        go = await client.open_transfer(OpenTransfer(replicas=1))
        await client.offer(go.transfer_id, [image.offered() for image in sent])
        await client.receipts(go.transfer_id, [nodes[0].sign([image.receipt("node-1") for image in sent])])
        with pytest.raises(ConflictError):
            await client.commit(go.transfer_id, claim(sent[:1]))
        await client.commit(go.transfer_id, claim(sent))
        found, after = [], None
        while True:
            page = await client.list_objects(limit=10, after=after)
            found += [stored.object_id for stored in page.objects]
            assert len(page.objects) <= 10
            if page.next is None:
                break
            after = page.next
        assert found == sorted(image.object_id for image in sent)
        series = await client.list_objects(series="1.2.3.1")
        assert len(series.objects) == 10
        assert (await client.list_objects(study="1.2.3", series="1.2.9")).objects == []
        one = await client.list_objects(object_id=found[5])
        assert [stored.object_id for stored in one.objects] == [found[5]]


async def serve_answers(
    identities: Identities, answers: list[bytes], nursery: trio.Nursery, party: str = "gateway-1"
) -> int:
    """Serve TLS as `party`; give each connection the next of `answers` (the last for ever). Return the port."""
    context = tls.server_context(identities[party], require_client=True)

    async def answer(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True)
        try:
            await secured.receive_some(65536)
            await secured.send_all(answers.pop(0) if len(answers) > 1 else answers[0])
            await secured.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            await trio.aclose_forcefully(secured)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, answer, [listener])
    return int(listener.socket.getsockname()[1])


STATUS = b'{"objects":1,"bytes":2,"stored_bytes":3,"studies":4,"nodes":[],"transfers":[]}'


async def test_an_answer_of_another_party_than_a_gateway_is_none(identities: Identities, nursery: trio.Nursery) -> None:
    port = await serve_answers(identities, [ok(STATUS)], nursery, "node-1")
    async with GatewayClient(identities.credentials("ws-1", port), patience_s=1) as client:
        with pytest.raises(UnauthorisedError, match="node-1 answers as node where a gateway should"):
            await client.status()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"\x00garbage\r\n\r\n",
        b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: 64\r\n\r\n"
        + b'{"code":"internal","message":"x","retryable":true}'.ljust(64),
        b"HTTP/1.1 503 X\r\nContent-Length: 64\r\n\r\n" + b'{"code":"busy","message":"x","retryable":true}'.ljust(64),
    ],
)
async def test_what_may_pass_is_asked_again(identities: Identities, nursery: trio.Nursery, bad: bytes) -> None:
    port = await serve_answers(identities, [bad, bad, ok(STATUS)], nursery)
    async with GatewayClient(identities.credentials("ws-1", port), patience_s=30, jitter=lambda: 0.0) as client:
        assert (await client.status()).studies == 4
    nursery.cancel_scope.cancel()


BUSY = b'{"code":"busy","message":"x","retryable":true}'


def busy(retry_after: str) -> bytes:
    head = f"HTTP/1.1 503 X\r\nRetry-After: {retry_after}\r\nContent-Length: {len(BUSY)}\r\n\r\n"
    return head.encode() + BUSY


async def test_who_is_told_when_to_come_back_comes_then_and_not_before(
    identities: Identities, nursery: trio.Nursery
) -> None:
    port = await serve_answers(identities, [busy("1"), busy("1"), ok(STATUS)], nursery)
    started_s = trio.current_time()
    async with GatewayClient(identities.credentials("ws-1", port), patience_s=1, jitter=lambda: 0.0) as client:
        assert (await client.status()).studies == 4  # also beyond the patience: the gateway is there, and said so
    assert trio.current_time() - started_s >= 2
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("said", "understood_s"), [("7", 7.0), ("99999999", 3600.0), ("soon", 0.0), ("-1", 0.0)])
async def test_when_to_come_back_is_kept_with_the_error(
    identities: Identities, nursery: trio.Nursery, said: str, understood_s: float
) -> None:
    port = await serve_answers(identities, [busy(said)], nursery)
    async with GatewayClient(identities.credentials("ws-1", port), patience_s=0) as client:
        with pytest.raises(BusyError) as refused:
            await client.status()
    assert refused.value.retry_after_s == understood_s
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "bad",
    [
        ok(b"{}"),
        ok(b"<html>"),
        b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_cannot_pass_is_not_asked_again(identities: Identities, nursery: trio.Nursery, bad: bytes) -> None:
    port = await serve_answers(identities, [bad, ok(STATUS)], nursery)
    async with GatewayClient(identities.credentials("ws-1", port), patience_s=30) as client:
        with pytest.raises(ProtocolError):
            await client.status()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bad", [ok(b" " * 2000), HEAD + b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + b" " * 2000])
async def test_answer_that_is_too_long_or_without_a_length_is_not_begun(
    identities: Identities, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, bad: bytes
) -> None:
    monkeypatch.setattr(client_module, "ANSWER_BYTES_MAX", 1000)
    port = await serve_answers(identities, [bad], nursery)
    async with GatewayClient(identities.credentials("ws-1", port), patience_s=30) as client:
        with pytest.raises(ProtocolError, match="no length, or more than 1000 bytes"):
            await client.status()
    nursery.cancel_scope.cancel()


async def test_a_gateway_that_takes_too_long_is_not_said_to_refuse_a_certificate(
    identities: Identities, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT_S", 1.0)
    context = tls.server_context(identities["gateway-1"], require_client=True)

    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.SSLStream(stream, context, server_side=True).receive_some(65536)
        await trio.sleep_forever()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, say_nothing, [listener])
    port = int(listener.socket.getsockname()[1])
    async with GatewayClient(identities.credentials("ws-1", port), patience_s=0) as client:
        with pytest.raises(UnreachableError, match=r"does not answer: nothing came within 1 s$"):
            await client.status()
    nursery.cancel_scope.cancel()


async def test_nobody_there_is_unreachable_when_patience_ends(identities: Identities, free_ports) -> None:
    started_s = time.monotonic()
    async with GatewayClient(identities.credentials("ws-1", free_ports[0]), patience_s=0.3) as client:
        with pytest.raises(UnreachableError, match="does not answer"):
            await client.status()
    assert time.monotonic() - started_s < 5
