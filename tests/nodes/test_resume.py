"""Resumable uploads: what has come is not sent again, wherever the connection broke."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.nodes.kit import Client, Running, Site, announce, flow_to, open_client, open_node, raw_id, wait_until
from tests.store.objects import fetch, noise
from transfer.encodings import get_encoding
from transfer.errors import UnreachableError, UnusableFileError
from transfer.objects import object_id
from transfer.protocol.messages import Ping, Pong

DATA = noise((6 << 20) + 123)
BLOCK = 1 << 20


async def blocks(data: bytes, upto: int | None = None) -> AsyncIterator[bytes]:
    """Yield `data` in blocks; after `upto` bytes the source fails."""
    for start in range(0, len(data), BLOCK):
        if upto is not None and start >= upto:
            raise UnusableFileError("the file went away")
        yield data[start : start + BLOCK]


async def send(client: Client, data: bytes = DATA, stored: bytes = b"", encoding: str = "raw", **how) -> int:
    """Send resumably; return the bytes that went over the wire."""
    before = client.flow.sent_bytes
    put = announce(data, encoding=encoding, resumable=True)
    with trio.fail_after(20):
        await client.flow.put_stream(put, blocks(stored or data, **how))
    return client.flow.sent_bytes - before


async def send_part(running: Running, ticket: bytes, upto: int, body: bytes = DATA) -> None:
    """Send the first `upto` bytes and break off; wait until the node has kept them."""

    async def cut() -> AsyncIterator[bytes]:
        for start in range(0, upto, BLOCK):
            yield body[start : min(upto, start + BLOCK)]
        assert await client.ask(Ping(1)) == Pong(1)  # all that was sent has been read
        raise UnreachableError("the cable is out")

    with pytest.RaisesGroup(UnreachableError, flatten_subgroups=True, allow_unwrapped=True):
        async with open_client(running, ticket) as client:
            await client.flow.put_stream(announce(DATA, resumable=True), cut())
    await wait_until(lambda: not running.store._partials)


async def test_a_whole_upload_keeps_no_partial(site: Site, node: Running) -> None:
    async with open_client(node, site.ticket(node)) as client:
        assert len(DATA) < await send(client) < len(DATA) + 1000
        assert await client.gather(site, 1) == [object_id(DATA)]
    assert fetch(node.store, object_id(DATA)) == DATA
    assert node.files("incoming") == []


@pytest.mark.parametrize("upto", [1, BLOCK, BLOCK + 1, 4 << 20, len(DATA) - 1, len(DATA)])
async def test_an_upload_goes_on_where_it_was_cut(site: Site, node: Running, upto: int) -> None:
    await send_part(node, site.ticket(node), upto)
    (partial,) = node.files("incoming")
    assert partial.name == f"{object_id(DATA)}.partial"
    assert partial.read_bytes()[2048:] == DATA[:upto]
    async with open_client(node, site.ticket(node)) as client:
        rest = len(DATA) - upto
        assert rest <= await send(client) < rest + 1000
        assert await client.gather(site, 1) == [object_id(DATA)]
    assert fetch(node.store, object_id(DATA)) == DATA
    assert node.files("incoming") == []


async def test_an_upload_goes_on_after_the_node_was_started_anew(site: Site, tmp_path: Path) -> None:
    async with open_node(site, tmp_path) as node:
        await send_part(node, site.ticket(node), 3 << 20)
    async with open_node(site, tmp_path) as node, open_client(node, site.ticket(node)) as client:
        assert await send(client) < len(DATA) - (3 << 20) + 1000
        assert await client.gather(site, 1) == [object_id(DATA)]
        assert fetch(node.store, object_id(DATA)) == DATA


async def test_a_damaged_partial_is_found_out_and_the_next_attempt_is_whole(site: Site, node: Running) -> None:
    await send_part(node, site.ticket(node), 3 << 20)
    (partial,) = node.files("incoming")
    with partial.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    async with open_client(node, site.ticket(node)) as client:
        await send(client)
        refused = await client.next()
        assert (refused.object_id, refused.code) == (raw_id(DATA), "corrupt")
        assert node.files("incoming") == []
        assert await send(client) > len(DATA)
        assert await client.gather(site, 1) == [object_id(DATA)]


async def test_a_source_that_fails_abandons_and_what_came_is_kept(site: Site, node: Running) -> None:
    async with open_client(node, site.ticket(node)) as client:
        with pytest.raises(UnusableFileError):
            await send(client, upto=2 << 20)
        assert await client.ask(Ping(5)) == Pong(5)
        assert len(node.files("incoming")) == 1
        assert node.files("objects") == []
        assert await send(client) < len(DATA) - (2 << 20) + 1000
        assert await client.gather(site, 1) == [object_id(DATA)]


async def test_an_object_that_is_here_already_is_answered_before_its_first_byte(site: Site, node: Running) -> None:
    async with open_client(node, site.ticket(node)) as client:
        await send(client)
        assert await client.gather(site, 1) == [object_id(DATA)]
        assert await send(client) < 200
        assert await client.gather(site, 1) == [object_id(DATA)]
        await client.put(b"next")
        assert await client.gather(site, 1) == [object_id(b"next")]
    assert len(node.files("objects")) == 2


async def test_a_refusal_comes_before_the_first_byte(site: Site, tmp_path: Path) -> None:
    full = open_node(site, tmp_path, reserve_bytes=1 << 60)
    async with full as node, open_client(node, site.ticket(node)) as client:
        assert await send(client) < 200
        assert (await client.next()).code == "full"
        assert await client.ask(Ping(5)) == Pong(5)


async def test_two_flows_do_not_write_one_partial(site: Site, node: Running) -> None:
    ticket = site.ticket(node)
    async with flow_to(node, ticket) as first:
        await first.ask(announce(DATA, resumable=True))
        await wait_until(lambda: node.files("incoming") != [])
        async with open_client(node, ticket) as second:
            assert await send(second) < 200
            assert (await second.next()).code == "busy"
    await wait_until(lambda: not node.store._partials)
    async with open_client(node, ticket) as third:
        await send(third)
        assert await third.gather(site, 1) == [object_id(DATA)]


async def test_zstd_goes_on_from_its_stored_offset(site: Site, node: Running) -> None:
    original = DATA[: 3 << 20] * 2
    stored = bytes(get_encoding("zstd").encode(original))
    upto = 2 << 20
    async with open_client(node, site.ticket(node)) as client:
        with pytest.raises(UnusableFileError):
            await send(client, original, stored, "zstd", upto=upto)
        assert await client.ask(Ping(5)) == Pong(5)
        assert await send(client, original, stored, "zstd") < len(stored) - upto + 1000
        (receipt,) = (await client.stored(site)).receipts
    assert (receipt.object_id.hex(), receipt.stored_bytes) == (object_id(original), len(stored))
    assert fetch(node.store, object_id(original)) == stored
