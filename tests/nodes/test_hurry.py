"""A client that says that nothing more comes need not wait for a group to fill."""

import trio

from tests.nodes.kit import Running, Site, open_client
from tests.store.objects import noise
from transfer import receipts
from transfer.objects import object_id
from transfer.protocol.messages import Ping, Pong


async def test_a_ping_closes_the_group_that_gathers(site: Site, node: Running, monkeypatch) -> None:
    monkeypatch.setattr("nodes.committer.GATHER_S", 60.0)
    async with open_client(node, site.ticket(node)) as client:
        await client.put(noise(1000))
        with trio.fail_after(10):
            assert await client.ask(Ping(0)) == Pong(0)
            batch = receipts.verify(await client.next(), site.public_key("node-1"))
    assert [receipt.object_id.hex() for receipt in batch.receipts] == [object_id(noise(1000))]


async def test_a_ping_that_asks_for_the_round_trip_closes_none(site: Site, node: Running, monkeypatch) -> None:
    monkeypatch.setattr("nodes.committer.GATHER_S", 2.0)
    async with open_client(node, site.ticket(node)) as client:
        started_s = trio.current_time()
        await client.put(noise(1000))
        assert await client.ask(Ping(7)) == Pong(7)
        assert trio.current_time() - started_s < 1.5
        receipts.verify(await client.next(), site.public_key("node-1"))
        assert trio.current_time() - started_s >= 2.0
