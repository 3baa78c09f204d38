"""What a client sends is stored exactly, or refused by name, and the flow goes on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from nodes import credit
from tests.nodes.kit import Running, Site, announce, flow_to, open_client, open_node, raw_id
from tests.store.objects import dicom, fetch, noise
from transfer.encodings import get_encoding
from transfer.errors import BusyError
from transfer.objects import object_id
from transfer.protocol.frames import ABANDONED, LAST, encode_control, encode_data_header
from transfer.protocol.messages import Bye, Ping, Pong, Refused, Stored
from transfer.receipts import Receipt


async def test_a_stored_object_has_a_signed_receipt_with_what_its_bytes_say(site: Site, node: Running) -> None:
    data = dicom("1.2.3.99")
    async with open_client(node, site.ticket(node)) as client:
        assert client.flow.welcome.node_id == "node-1"
        assert client.flow.welcome.incarnation == node.store.incarnation
        await client.put(data)
        batch = await client.stored(site)
    (receipt,) = batch.receipts
    identity = receipt.identity
    assert (batch.node_id, batch.incarnation, batch.transfer_id) == ("node-1", node.store.incarnation, "t-1")
    assert receipt == Receipt(raw_id(data), len(data), len(data), "raw", ["node-1"], identity)
    assert (identity.sop_instance_uid, identity.modality, identity.patient_id) == ("1.2.3.99", "CT", "ID 7")
    assert fetch(node.store, object_id(data)) == data


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_an_object_that_is_here_already_gets_a_receipt_and_no_second_file(site: Site, node: Running) -> None:
    data = dicom()
    async with open_client(node, site.ticket(node)) as client:
        await client.put(data)
        first = await client.stored(site)
        (file,) = node.files("objects")
        before = file.stat()
        await client.put(data)
        again = await client.stored(site)
    assert again.receipts == first.receipts
    assert node.files("objects") == [file]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert node.files("incoming") == []


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_rotten_copy_does_not_stand_for_what_comes(site: Site, node: Running, resumable: bool) -> None:
    data = dicom()
    async with open_client(node, site.ticket(node)) as client:
        await client.put(data)
        await client.stored(site)
        (file,) = node.files("objects")
        rotten = bytearray(file.read_bytes())
        rotten[-1] ^= 1
        file.chmod(0o600)
        file.write_bytes(rotten)
        await client.flow.put_stream(announce(data, resumable=resumable), _whole(data))
        assert await client.gather(site, 1) == [object_id(data)]
    assert fetch(node.store, object_id(data)) == data
    assert len(node.files("quarantine")) == 1


@pytest.mark.parametrize("size_bytes", [100, 3 << 20])
async def test_wrong_bytes_are_refused_and_leave_nothing(site: Site, node: Running, size_bytes: int) -> None:
    data, good = noise(size_bytes), dicom()
    async with open_client(node, site.ticket(node)) as client:
        await client.put(data, name=raw_id(b"something else"))
        refused = await client.next()
        assert (refused.object_id, refused.code) == (raw_id(b"something else"), "corrupt")
        assert (node.files("objects"), node.files("incoming")) == ([], [])
        await client.put(good)
        assert (await client.stored(site)).receipts[0].object_id == raw_id(good)


@pytest.mark.parametrize("excess_bytes", [100_000, 3 << 20])
async def test_more_bytes_than_announced_are_refused(site: Site, node: Running, excess_bytes: int) -> None:
    data = noise(1000 + excess_bytes)
    async with open_client(node, site.ticket(node)) as client:
        announced = announce(data[:1000], name=raw_id(data))
        await client.flow.put(announced, data)
        assert (await client.next()).code == "corrupt"
        await client.put(data[:1000])
        assert await client.gather(site, 1) == [object_id(data[:1000])]
    assert node.files("incoming") == []


async def test_a_full_node_refuses_the_object_and_the_flow_goes_on(site: Site, tmp_path: Path) -> None:
    data = dicom()
    async with open_node(site, tmp_path, reserve_bytes=1 << 60) as node:
        async with open_client(node, site.ticket(node)) as client:
            assert client.flow.welcome.free_bytes == 0
            for _ in range(2):
                await client.put(data)
                refused = await client.next()
                assert (refused.object_id, refused.code) == (raw_id(data), "full")
            assert await client.ask(Ping(7)) == Pong(7)
        assert (node.files("objects"), node.files("incoming")) == ([], [])


async def test_an_object_that_cannot_be_is_refused_and_the_flow_goes_on(site: Site, node: Running) -> None:
    data = noise(10)
    async with open_client(node, site.ticket(node)) as client:
        await client.flow.put(announce(data, encoding="no-such-encoding"), data)
        assert (await client.next()).object_id == raw_id(data)
        await client.put(b"next")
        assert await client.gather(site, 1) == [object_id(b"next")]


@pytest.mark.parametrize("size_bytes", [1, 5000, 5 << 20])
async def test_zstd_objects_rest_as_they_came(site: Site, node: Running, size_bytes: int) -> None:
    data = noise(1000) * (size_bytes // 1000) + noise(size_bytes % 1000)
    stored = bytes(get_encoding("zstd").encode(data))
    async with open_client(node, site.ticket(node)) as client:
        await client.put(data, encoding="zstd")
        (receipt,) = (await client.stored(site)).receipts
    assert (receipt.object_id, receipt.size_bytes, receipt.stored_bytes, receipt.encoding) == (
        raw_id(data),
        len(data),
        len(stored),
        "zstd",
    )
    assert fetch(node.store, object_id(data)) == stored


async def test_zstd_that_decodes_to_another_object_is_refused(site: Site, node: Running) -> None:
    data = noise(5000)
    async with open_client(node, site.ticket(node)) as client:
        for body in (noise(5000, seed=3), noise(9000), noise(100)):
            await client.flow.put(announce(data, encoding="zstd"), get_encoding("zstd").encode(body))
            assert (await client.next()).code == "corrupt"
        await client.flow.put(announce(data, encoding="zstd"), b"no zstd at all")
        assert (await client.next()).code == "corrupt"
    assert (node.files("objects"), node.files("incoming")) == ([], [])


async def test_many_objects_are_pipelined(site: Site, node: Running) -> None:
    objects = [noise(20_000 + number, seed=number) for number in range(200)]
    async with open_client(node, site.ticket(node)) as client:
        for data in objects:
            await client.put(data)
        assert sorted(await client.gather(site, 200)) == sorted(object_id(data) for data in objects)
    assert all(fetch(node.store, object_id(data)) == data for data in objects)


async def test_an_abandoned_object_leaves_nothing_and_the_flow_goes_on(site: Site, node: Running) -> None:
    data = noise(3 << 20)
    async with open_client(node, site.ticket(node)) as client:
        for length in (0, 100, 1 << 20):
            parts = encode_data_header(0, length), data[:length], encode_data_header(length, 0, ABANDONED)
            await client.flow.wait_credit(length)
            client.flow._connection.credit_bytes -= length
            await client.flow._send(encode_control(announce(data)), *parts)
            assert await client.ask(Ping(length)) == Pong(length)
        assert (node.files("objects"), node.files("incoming")) == ([], [])
        await client.put(data)
        assert await client.gather(site, 1) == [object_id(data)]


async def test_a_large_object_in_small_blocks_needs_no_more_credit_than_one_in_large(site: Site, node: Running) -> None:
    """Encoded strips are blocks of a third of a MiB. What had been spilt once counted as kept until the commit."""
    data = noise(40 << 20)

    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 350_000):
            yield data[start : start + 350_000]

    async with open_client(node, site.ticket(node)) as client:
        with trio.fail_after(20):
            await client.flow.put_stream(announce(data), blocks())
            assert await client.gather(site, 1) == [object_id(data)]
            assert await client.ask(Ping(1)) == Pong(1)
        assert client.flow._connection.credit_bytes <= credit.WINDOW_BYTES_MAX


async def test_objects_that_were_given_up_or_refused_cost_no_credit(site: Site, node: Running) -> None:
    """20 MB of them, through a window of 8."""
    data = noise(200_000)
    whole = noise(2 << 20)
    async with open_client(node, site.ticket(node)) as client:
        for _ in range(50):
            with trio.fail_after(5):
                await client.flow.wait_credit(len(data))
            client.flow._connection.credit_bytes -= len(data)
            body = encode_data_header(0, len(data)), data, encode_data_header(len(data), 0, ABANDONED)
            await client.flow._send(encode_control(announce(whole)), *body)
        for _ in range(10):
            await client.flow.put(announce(data), data + noise(1_000_000))
            assert (await client.next()).code == "corrupt"
        await client.put(whole)
        assert await client.gather(site, 1) == [object_id(whole)]
        assert await client.ask(Ping(1)) == Pong(1)
        assert client.flow._connection.credit_bytes <= credit.WINDOW_BYTES_MAX


async def test_a_transfer_may_send_no_more_than_its_ticket_says(site: Site, node: Running) -> None:
    async with open_client(node, site.ticket(node, max_bytes=100)) as client:
        await client.put(bytes(80))
        assert await client.gather(site, 1) == [object_id(bytes(80))]
        for size_bytes in (21, 90, 100):
            await client.put(bytes(size_bytes))
            assert (await client.next()).code == "full"
        await client.put(bytes(20))
        assert await client.gather(site, 1) == [object_id(bytes(20))]
        await client.put(bytes(80))  # is here already, and costs nothing
        assert await client.gather(site, 1) == [object_id(bytes(80))]
    async with open_client(node, site.ticket(node, max_bytes=100)) as client:
        await client.put(bytes(1))
        assert (await client.next()).code == "full"
    async with open_client(node, site.ticket(node, max_bytes=100, transfer_id="t-2")) as client:
        await client.put(bytes(1))
        assert await client.gather(site, 1) == [object_id(bytes(1))]


async def test_bye_is_answered_with_the_receipts_that_are_due(site: Site, node: Running) -> None:
    objects = [noise(50_000, seed=number) for number in range(20)]
    async with open_client(node, site.ticket(node)) as client:
        for data in objects:
            await client.put(data)
        await client.flow.bye()
        assert sorted(await client.gather(site, 20)) == sorted(object_id(data) for data in objects)
        with pytest.raises(trio.EndOfChannel):
            await client.next()


async def test_a_client_that_only_ends_its_side_gets_its_receipts_too(site: Site, node: Running) -> None:
    data = dicom()
    async with flow_to(node, site.ticket(node)) as flow:
        await flow.put(announce(data), data)
        flow._stream._socket.shutdown(trio.socket.SHUT_WR)
        (stored,) = [frame async for frame in flow.frames()]
    assert isinstance(stored, Stored)


async def test_an_object_cut_off_in_the_middle_leaves_nothing(site: Site, node: Running) -> None:
    data = noise(3 << 20)
    async with flow_to(node, site.ticket(node)) as flow:
        await flow._send(encode_control(announce(data)), encode_data_header(0, 2000), data[:2000])
        flow._stream._socket.shutdown(trio.socket.SHUT_WR)
        with pytest.raises(Exception, match="middle"):
            [frame async for frame in flow.frames()]
    assert (node.files("objects"), node.files("incoming")) == ([], [])


async def test_when_too_many_flows_send_one_more_is_busy(site: Site, node: Running, monkeypatch) -> None:
    monkeypatch.setattr(credit, "FLOWS_MAX", 3)
    ticket = site.ticket(node)
    async with open_client(node, ticket) as first, open_client(node, ticket), open_client(node, ticket):
        assert node.node.flows == 3
        with pytest.raises(BusyError, match="node-1 has 3 flows"):
            async with flow_to(node, ticket):
                pass
        async with open_client(node, site.ticket(node, rights=["get"])) as reader:  # takes no window
            assert await reader.ask(Ping(1)) == Pong(1)
        await first.flow.ask(Bye())
        with pytest.raises(trio.EndOfChannel):
            await first.next()
        async with open_client(node, ticket) as fourth:
            await fourth.put(b"x")
            assert await fourth.gather(site, 1) == [object_id(b"x")]


async def test_last_may_come_in_a_frame_of_its_own(site: Site, node: Running) -> None:
    data = noise(1000)
    async with open_client(node, site.ticket(node)) as client:
        head = encode_control(announce(data))
        client.flow._connection.credit_bytes -= 1000
        await client.flow._send(head, encode_data_header(0, 1000), data, encode_data_header(1000, 0, LAST))
        assert await client.gather(site, 1) == [object_id(data)]
        await client.flow._send(encode_control(announce(data[:9])), encode_data_header(0, 0, LAST))
        assert isinstance(refused := await client.next(), Refused)
        assert refused.code == "corrupt"
