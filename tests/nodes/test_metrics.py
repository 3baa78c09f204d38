"""The metrics listener: Prometheus gets its text, anybody else a short answer, and nobody holds it up."""

from collections.abc import AsyncIterator

import pytest
import trio

from nodes.metrics import REQUEST_BYTES_MAX, serve_metrics
from tests.nodes.kit import Running, Site, exchange, open_client
from tests.store.objects import noise
from transfer.addresses import Address
from transfer.protocol.messages import Get, Ping, Pong
from transfer.stream import listen, port_of

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"


@pytest.fixture
async def metrics(node: Running) -> AsyncIterator[Address]:
    async with await listen(Address("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve_metrics, node.node.metrics.registry, listener)
        yield Address("127.0.0.1", port_of(listener))
        nursery.cancel_scope.cancel()


async def scrape(address: Address) -> dict[str, float]:
    answer = await exchange(address, SCRAPE)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    lines = [line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_what_a_node_did_is_counted(site: Site, node: Running, metrics: Address) -> None:
    data = noise(1000) * 5
    async with open_client(node, site.ticket(node, max_bytes=10_000)) as client:
        await client.put(data, encoding="zstd")
        (receipt,) = (await client.stored(site)).receipts
        await client.put(bytes(9000))
        assert (await client.next()).code == "full"
        head = await client.ask(Get(receipt.object_id))
        await client.body(head)
        assert await client.ask(Ping(1)) == Pong(1)
        assert node.store.wait_counted(10)
        found = await scrape(metrics)
    assert found["fascicle_node_objects_stored_total"] == 1
    assert found["fascicle_node_stored_bytes_total"] == receipt.stored_bytes < 5000
    assert found["fascicle_node_original_bytes_total"] == 5000
    assert found["fascicle_node_objects_served_total"] == 1
    assert found['fascicle_node_refusals_total{code="full"}'] == 1
    assert found["fascicle_node_objects"] == 1
    assert found["fascicle_node_flows"] == 1
    assert found["fascicle_node_free_bytes"] > 0


async def test_a_refused_flow_is_counted(node: Running, metrics: Address) -> None:
    await exchange(node.address, b"GET / HTTP/1.1\r\n\r\n")
    assert (await scrape(metrics))['fascicle_node_refusals_total{code="protocol"}'] == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics/../x HTTP/1.1\r\n\r\n",
        b"GET",
        b"\r\n\r\n",
        b"",
        b"\x16\x03\x01\x00\xc8",
        bytes(REQUEST_BYTES_MAX),
    ],
)
async def test_anything_else_is_not_found(metrics: Address, request_bytes: bytes) -> None:
    assert await exchange(metrics, request_bytes, end=True) == NOT_FOUND
    assert "fascicle_node_objects" in await scrape(metrics)


async def test_an_endless_request_is_cut_short(metrics: Address) -> None:
    answer = await exchange(metrics, b"PUT /metrics " + b"x" * (1 << 20))
    assert answer in (NOT_FOUND, b"")  # nothing, when the node closes with bytes unread
    assert "fascicle_node_objects" in await scrape(metrics)


async def test_a_silent_scraper_is_left(metrics: Address, autojump_clock) -> None:
    started = trio.current_time()
    assert await exchange(metrics, b"GET /me") == b""
    assert 5 <= trio.current_time() - started < 10
