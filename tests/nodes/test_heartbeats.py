"""Heartbeats: signed by the node, true, in sequence, and sent whether or not anybody listens."""

from functools import partial

import pytest
import trio
from structlog.testing import capture_logs

from nodes.heartbeat import beat
from tests.nodes.kit import Running, Site, open_client, wait_until
from tests.store.objects import noise, put
from transfer import heartbeat
from transfer.addresses import Address
from transfer.errors import UnauthorisedError
from transfer.heartbeat import DATAGRAM_BYTES_MAX, INTERVAL_S


async def receive(socket: trio.socket.SocketType) -> bytes:
    datagram, _ = await socket.recvfrom(65_535)
    assert len(datagram) <= DATAGRAM_BYTES_MAX
    return datagram


async def test_heartbeats_say_where_the_node_is_and_what_it_holds(site: Site, node: Running, mock_clock) -> None:
    put(node.store, noise(1000))
    put(node.store, noise(3000))
    assert node.store.wait_counted(10)
    advertised = Address("node-1.example", 4242)
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
        await socket.bind(("127.0.0.1", 0))
        gateway = Address("127.0.0.1", socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(beat, node.node, advertised, gateway, failure_domain="host-a", life=7))
            datagram = await receive(socket)
            first = heartbeat.verify(datagram, site.public_key("node-1"))
            with pytest.raises(UnauthorisedError):
                heartbeat.verify(datagram, site.public_key("node-2"))
            async with open_client(node, site.ticket(node)):
                mock_clock.jump(INTERVAL_S)
                second = heartbeat.verify(await receive(socket), site.public_key("node-1"))
            nursery.cancel_scope.cancel()
    assert (first.node_id, first.incarnation, first.host, first.port, first.failure_domain) == (
        "node-1",
        node.store.incarnation,
        "node-1.example",
        4242,
        "host-a",
    )
    assert (first.objects, first.used_bytes, first.flows, first.sequence) == (2, 4000, 0, 1)
    assert (second.sequence, second.flows, second.started_ns, first.started_ns) == (2, 1, 7, 7)
    assert first.free_bytes > 0


@pytest.mark.parametrize("gateway", [Address("127.0.0.1", 1), Address("no-such-host.invalid", 9), Address("::1", 9)])
async def test_a_gateway_that_is_not_there_does_not_concern_the_node(
    site: Site, node: Running, gateway: Address, autojump_clock
) -> None:
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(beat, node.node, node.address, gateway, failure_domain="", life=7))
            await trio.sleep(4 * INTERVAL_S)
            if gateway.host.endswith(".invalid"):
                await wait_until(lambda: len(logs) > 0)
            nursery.cancel_scope.cancel()
    assert {line["event"] for line in logs} <= {"heartbeat_not_sent"}
