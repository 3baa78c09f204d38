"""Replicas: an object is acknowledged when all of them are durable, and not before."""

import msgspec
import pytest

from nodes import credit
from nodes.replicate import rank
from tests.nodes.kit import Running, Site, flow_to, open_client, open_node, raw_id, wait_until
from tests.store.objects import dicom, fetch, noise, put
from transfer.encodings import get_encoding
from transfer.errors import BusyError
from transfer.objects import object_id
from transfer.protocol.messages import Ping, Pong
from transfer.tickets import TicketNode


def held_by(data: bytes, *running: Running) -> list[bool]:
    return [node.object_file(object_id(data)).exists() for node in running]


@pytest.mark.parametrize("secure", [False, True])
async def test_two_peers_get_the_object_and_the_receipt_names_them(site: Site, tmp_path, secure: bool) -> None:
    objects = [dicom("1.2.3"), noise(5 << 20), *(noise(30_000, seed=number) for number in range(30))]
    async with (
        open_node(site, tmp_path, "node-1", secure=secure) as first,
        open_node(site, tmp_path, "node-2", secure=secure) as second,
        open_node(site, tmp_path, "node-3", secure=secure) as third,
        open_client(
            first, site.ticket(first, second, third, replicas=3), site.client("ws-1") if secure else None
        ) as client,
    ):
        for data in objects:
            await client.put(data, onward=2)
        found = {}
        while len(found) < len(objects):
            found |= {receipt.object_id: receipt for receipt in (await client.stored(site)).receipts}
        for data in objects:
            assert sorted(found[raw_id(data)].node_ids) == ["node-1", "node-2", "node-3"]
            assert found[raw_id(data)].node_ids[0] == "node-1"
            assert all(fetch(node.store, object_id(data)) == data for node in (first, second, third))


async def test_a_node_that_is_full_of_senders_takes_replicas_all_the_same(
    site: Site, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes whose senders wait for a replica on the other one: nobody would ever be done."""
    monkeypatch.setattr(credit, "FLOWS_MAX", 1)
    context = site.client("ws-1")
    async with (
        open_node(site, tmp_path, "node-1", secure=True) as first,
        open_node(site, tmp_path, "node-2", secure=True) as second,
        open_client(first, site.ticket(first, second, replicas=2), context) as to_first,
        open_client(second, site.ticket(first, second, replicas=2), context) as to_second,
    ):
        for number, client in enumerate((to_first, to_second)):
            await client.put(noise(1000, seed=number), onward=1)
            (receipt,) = (await client.stored(site, f"node-{number + 1}")).receipts
            assert sorted(receipt.node_ids) == ["node-1", "node-2"]
        with pytest.raises(BusyError, match="has 2 flows that send"):  # the sender's, and the other node's
            async with flow_to(second, site.ticket(second), context):
                pass


async def test_one_node_does_not_take_all_flows_of_another(site: Site, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(credit, "NODE_FLOWS_MAX", 2)
    async with (
        open_node(site, tmp_path, "node-1", secure=True) as first,
        open_node(site, tmp_path, "node-2", secure=True) as second,
    ):
        ticket, context = site.ticket(first, second), site.client("node-2")
        async with open_client(first, ticket, context), open_client(first, ticket, context):
            with pytest.raises(BusyError, match="node-2 has 2 flows that send here"):
                async with flow_to(first, ticket, context):
                    pass
            async with open_client(first, ticket, site.client("ws-1")) as sender:
                assert await sender.ask(Ping(1)) == Pong(1)
        await wait_until(lambda: first.node.flows == 0)
        async with open_client(first, ticket, context) as again:
            assert await again.ask(Ping(2)) == Pong(2)


async def test_one_of_two_peers_is_chosen_by_rank(site: Site, tmp_path) -> None:
    async with (
        open_node(site, tmp_path, "node-1") as first,
        open_node(site, tmp_path, "node-2") as second,
        open_node(site, tmp_path, "node-3") as third,
        open_client(first, site.ticket(first, second, third)) as client,
    ):
        chosen = set()
        for number in range(12):
            data = noise(1000, seed=number)
            await client.put(data, onward=1)
            (receipt,) = (await client.stored(site)).receipts
            _, peer = receipt.node_ids
            chosen.add(peer)
            assert held_by(data, first, second, third) == [True, peer == "node-2", peer == "node-3"]
    assert chosen == {"node-2", "node-3"}


async def test_an_object_that_is_here_already_still_gets_its_replica(site: Site, tmp_path) -> None:
    data = dicom()
    async with (
        open_node(site, tmp_path, "node-1") as first,
        open_node(site, tmp_path, "node-2") as second,
        open_client(first, site.ticket(first, second)) as client,
    ):
        put(first.store, data)
        await client.put(data, onward=1)
        assert (await client.stored(site)).receipts[0].node_ids == ["node-1", "node-2"]
        assert held_by(data, first, second) == [True, True]


async def test_replicas_rest_in_the_encoding_that_came(site: Site, tmp_path) -> None:
    data = noise(1000) * 50
    async with (
        open_node(site, tmp_path, "node-1") as first,
        open_node(site, tmp_path, "node-2") as second,
        open_client(first, site.ticket(first, second)) as client,
    ):
        await client.put(data, encoding="zstd", onward=1)
        await client.stored(site)
        assert fetch(second.store, object_id(data)) == get_encoding("zstd").encode(data)


async def test_a_peer_that_is_down_makes_it_busy_and_one_that_is_back_makes_it_right(site: Site, tmp_path) -> None:
    data = dicom()
    async with open_node(site, tmp_path, "node-1") as first:
        async with open_node(site, tmp_path, "node-2") as second:
            ticket, port = site.ticket(first, second), second.address.port
        async with open_client(first, ticket) as client:
            await client.put(data, onward=1)
            refused = await client.next()
            assert (refused.object_id, refused.code) == (raw_id(data), "busy")
            async with open_node(site, tmp_path, "node-2", port=port) as second:
                await client.put(data, onward=1)
                assert (await client.stored(site)).receipts[0].node_ids == ["node-1", "node-2"]
                assert held_by(data, first, second) == [True, True]


async def test_a_peer_that_dies_with_a_link_open_is_reached_again(site: Site, tmp_path) -> None:
    async with open_node(site, tmp_path, "node-1") as first:
        async with open_node(site, tmp_path, "node-2") as second:
            ticket, port = site.ticket(first, second), second.address.port
            async with open_client(first, ticket) as client:
                await client.put(b"before", onward=1)
                assert (await client.stored(site)).receipts[0].node_ids == ["node-1", "node-2"]
        await wait_until(lambda: not first.node.replicator._links)
        async with open_node(site, tmp_path, "node-2", port=port) as second, open_client(first, ticket) as client:
            await client.put(b"after", onward=1)
            assert (await client.stored(site)).receipts[0].node_ids == ["node-1", "node-2"]
            assert held_by(b"before", first, second) == held_by(b"after", first, second) == [True, True]


async def test_a_full_peer_is_passed_over(site: Site, tmp_path) -> None:
    async with (
        open_node(site, tmp_path, "node-1") as first,
        open_node(site, tmp_path, "node-2", reserve_bytes=1 << 60) as full,
        open_node(site, tmp_path, "node-3") as third,
        open_client(first, site.ticket(first, full, third)) as client,
    ):
        for number in range(6):
            await client.put(noise(1000, seed=number), onward=1)
            assert (await client.stored(site)).receipts[0].node_ids == ["node-1", "node-3"]
        assert full.files("objects") == []


async def test_more_replicas_than_nodes_are_busy(site: Site, tmp_path) -> None:
    data = dicom()
    async with (
        open_node(site, tmp_path, "node-1") as first,
        open_node(site, tmp_path, "node-2") as second,
        open_client(first, site.ticket(first, second)) as client,
    ):
        await client.put(data, onward=2)
        refused = await client.next()
        assert (refused.object_id, refused.code) == (raw_id(data), "busy")
        assert await client.ask(Ping(1)) == Pong(1)


async def test_a_peer_with_another_key_than_the_ticket_says_is_not_believed(site: Site, tmp_path) -> None:
    data = dicom()
    async with open_node(site, tmp_path, "node-1") as first, open_node(site, tmp_path, "node-3") as third:
        named = TicketNode(
            "node-3", "127.0.0.1", third.address.port, site.public_key("node-2").public_bytes_raw().hex(), "c"
        )
        async with open_client(first, site.ticket(first, nodes=[site._named(first), named])) as client:
            await client.put(data, onward=1)
            assert (await client.next()).code == "busy"


def test_rank_prefers_other_hosts_and_leaves_out_the_node_itself() -> None:
    nodes = [TicketNode(f"node-{number}", "h", 1, "", f"host-{number % 2}") for number in range(6)]
    for number in range(20):
        ranked = rank(object_id(bytes([number])), nodes, nodes[0])
        assert sorted(node.node_id for node in ranked) == [f"node-{number}" for number in range(1, 6)]
        assert [node.failure_domain for node in ranked] == ["host-1"] * 3 + ["host-0"] * 2


def test_rank_spreads_and_stays_when_a_node_leaves() -> None:
    nodes = [TicketNode(f"node-{number}", "h", 1, "", f"host-{number}") for number in range(6)]
    ids = [object_id(number.to_bytes(2, "big")) for number in range(500)]
    first = {name: rank(name, nodes, nodes[0])[0].node_id for name in ids}
    counts = [list(first.values()).count(f"node-{number}") for number in range(1, 6)]
    assert all(60 < count < 140 for count in counts)
    for name in ids:
        left = rank(name, nodes[:5], nodes[0])[0].node_id
        assert left == first[name] or first[name] == "node-5"


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_revoked_peer_gets_no_replicas_also_by_a_link_that_is_open(site: Site, tmp_path, is_open: bool) -> None:
    """Whoever was revoked may be in other hands: images go to it no more, however long the sender's flow lasts."""
    async with (
        open_node(site, tmp_path, "node-1", secure=True) as first,
        open_node(site, tmp_path, "node-2", secure=True) as revoked,
        open_node(site, tmp_path, "node-3", secure=True) as third,
        open_client(first, site.ticket(first, revoked, third), site.client("ws-1")) as client,
    ):
        if is_open:
            for number in range(8):
                await client.put(noise(1000, seed=number), onward=1)
                await client.stored(site)
            assert "node-2" in first.node.replicator._links
        now = first.node.trusted.trust
        assert first.node.trusted.take(msgspec.structs.replace(now, revoked={"node-2": 1 << 40}))
        first.node.end_revoked()
        for number in range(8):
            data = noise(1000, seed=100 + number)
            await client.put(data, onward=1)
            assert (await client.stored(site)).receipts[0].node_ids == ["node-1", "node-3"]
            assert held_by(data, first, revoked, third) == [True, False, True]
