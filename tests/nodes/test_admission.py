"""Who may open a flow, and what each right allows."""

import contextlib
import time
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.nodes.kit import Running, Site, flow_to, open_client, open_node, raw_id
from tests.store.objects import dicom
from transfer import tls
from transfer.addresses import Address
from transfer.errors import FascicleError, UnauthorisedError, UnreachableError
from transfer.flow import open_flow
from transfer.protocol.messages import Check, Get, Ping, Pong, Reserve


async def assert_refused(running: Running, ticket: bytes, why: str, context=None) -> None:
    with pytest.raises(UnauthorisedError, match=why):
        async with flow_to(running, ticket, context):
            pass
    assert running.node.flows == 0


async def test_an_expired_ticket_is_refused(site: Site, node: Running) -> None:
    await assert_refused(node, site.ticket(node, expires_at_s=time.time() - 1), "expired [0-9]+ s ago; renew it")


@pytest.mark.parametrize("bit", [0, 77, 400, -1, -512, -513])
async def test_a_ticket_altered_in_one_bit_is_refused(site: Site, node: Running, bit: int) -> None:
    altered = bytearray(site.ticket(node))
    bit %= len(altered) * 8
    altered[bit // 8] ^= 1 << bit % 8
    await assert_refused(node, bytes(altered), "altered")


@pytest.mark.parametrize("ticket", [b"", b"x" * 63, b"x" * 1000, bytes(32 * 1024)])
async def test_what_is_no_ticket_is_refused(node: Running, ticket: bytes) -> None:
    await assert_refused(node, ticket, "not this gateway's")


async def test_a_ticket_signed_by_a_node_is_refused(site: Site, node: Running) -> None:
    await assert_refused(node, site.ticket(node, signer="node-1"), "not this gateway's")


async def test_a_ticket_for_other_nodes_is_refused(site: Site, node: Running) -> None:
    await assert_refused(node, site.ticket("node-2", "node-3"), "does not name node-1")


async def test_over_tls_the_holder_s_certificate_opens_the_flow(site: Site, secure_node: Running) -> None:
    data = dicom()
    async with open_client(secure_node, site.ticket(secure_node), site.client("ws-1")) as client:
        await client.put(data)
        assert (await client.stored(site)).receipts[0].object_id == raw_id(data)


async def test_another_certificate_of_the_cluster_may_not_show_the_ticket(site: Site, secure_node: Running) -> None:
    ticket = site.ticket(secure_node, "node-2")
    await assert_refused(secure_node, ticket, "another certificate", site.client("ws-2"))
    await assert_refused(secure_node, ticket, "another certificate", site.client("node-3"))
    await assert_refused(secure_node, ticket, "another certificate", site.client("gateway-1"))
    nobody_s = site.ticket(secure_node, client_fingerprint="")
    await assert_refused(secure_node, nobody_s, "another certificate", site.client("ws-1"))


async def test_a_node_that_the_ticket_names_may_replicate_with_it(site: Site, secure_node: Running) -> None:
    async with open_client(secure_node, site.ticket(secure_node, "node-2"), site.client("node-2")) as client:
        await client.put(b"replica")
        assert (await client.stored(site)).receipts[0].object_id == raw_id(b"replica")
    expired = site.ticket(secure_node, "node-2", expires_at_s=time.time() - 3600)  # the agent's flow may last longer
    async with open_client(secure_node, expired, site.client("node-2")) as client:
        await client.put(b"late replica")
        assert (await client.stored(site)).receipts[0].object_id == raw_id(b"late replica")
    await assert_refused(secure_node, expired, "expired", site.client("ws-1"))
    await assert_refused(
        secure_node,
        site.ticket(secure_node, "node-2", rights=["get", "check"]),
        "another certificate",
        site.client("node-2"),
    )


async def test_a_client_of_another_authority_gets_no_handshake(site: Site, secure_node: Running) -> None:
    stranger = site.client("stranger")
    stranger.load_verify_locations(site.folder / "ca/ca.pem")
    with pytest.raises(UnreachableError, match=r"TLS|broke|closed"):
        async with flow_to(secure_node, site.ticket(secure_node), stranger):
            pass
    async with open_client(secure_node, site.ticket(secure_node), site.client("ws-1")) as client:
        assert await client.ask(Ping(3)) == Pong(3)


async def test_a_client_refuses_a_node_of_another_authority(site: Site, secure_node: Running) -> None:
    with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        async with flow_to(secure_node, site.ticket(secure_node), site.client("stranger")):
            pass


ASKED = {
    "get": Get(bytes(32)),
    "check": Check([bytes(32)], False),
    "reserve": Reserve("t-1", 1),
}


@pytest.mark.parametrize("right", ASKED)
async def test_what_the_ticket_does_not_allow_ends_the_flow(site: Site, node: Running, right: str) -> None:
    others = [other for other in ("put", "get", "check", "reserve") if other != right]
    async with open_client(node, site.ticket(node, rights=others)) as client:
        with pytest.raises(UnauthorisedError, match=f"does not allow `{right}`"):
            await client.ask(ASKED[right])
    async with open_client(node, site.ticket(node, rights=[right])) as client:
        await client.flow.ask(ASKED[right])
        assert await client.next() != Pong(0)


async def test_without_the_right_to_put_nothing_is_stored(site: Site, node: Running) -> None:
    async with open_client(node, site.ticket(node, rights=["get", "check", "reserve"])) as client:
        with pytest.raises(FascicleError) as refused:
            await client.put(dicom())
            await client.next()
    assert refused.value.code in ("unauthorised", "unreachable")  # the second when the node closed in mid-sending
    assert (node.files("objects"), node.files("incoming")) == ([], [])


async def test_a_plain_node_takes_a_ticket_with_or_without_a_fingerprint(site: Site, tmp_path: Path) -> None:
    async with open_node(site, tmp_path) as node:
        for fingerprint in ("", site.fingerprint("ws-1")):
            async with open_client(node, site.ticket(node, client_fingerprint=fingerprint)) as client:
                assert await client.ask(Ping(1)) == Pong(1)


@pytest.mark.parametrize("wanted", ["node-9", "ws-1"])
async def test_another_party_where_a_node_should_be_gets_no_ticket(
    site: Site, secure_node: Running, wanted: str
) -> None:
    ticket = site.ticket(secure_node)
    with pytest.raises(UnreachableError, match=f"certificate of {secure_node.node.node_id} .*not of node {wanted}"):
        async with open_flow(secure_node.address, site.client("ws-1"), ticket, node_id=wanted):
            pass
    assert secure_node.node.flows == 0


async def test_a_gateway_that_listens_where_a_node_should_gets_no_ticket(site: Site) -> None:
    heard: list[bytes] = []

    async def listen(raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(
            raw, tls.server_context(site.folder / "gateway-1", require_client=True), server_side=True
        )
        with contextlib.suppress(trio.BrokenResourceError):  # the client hung up
            heard.append(await stream.receive_some(1000))

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, listen, 0, host="127.0.0.1"))
        address = Address("127.0.0.1", listener.socket.getsockname()[1])
        with pytest.raises(UnreachableError, match=r"certificate of gateway-1 \(gateway\), not of node gateway-1"):
            async with open_flow(address, site.client("ws-1"), b"a ticket", node_id="gateway-1"):
                pass
        nursery.cancel_scope.cancel()
    assert b"".join(heard) == b""


async def test_a_node_that_says_another_name_on_a_plain_data_plane_is_left(site: Site, node: Running) -> None:
    with pytest.raises(UnreachableError, match=f"is {node.node.node_id}, not node-9"):
        async with open_flow(node.address, None, site.ticket(node), node_id="node-9"):
            pass
