"""Whatever comes to a node's port: the connection is closed, one line is logged, and others are served as before."""

import random
import struct

import pytest
import trio
from structlog.testing import capture_logs

from tests.nodes.kit import Running, Site, announce, exchange, flow_to, open_client, open_node, raw_id, wait_until
from tests.store.objects import noise
from transfer.errors import FascicleError, ProtocolError
from transfer.protocol import frames
from transfer.protocol.frames import FrameReader, encode_control, encode_data_header
from transfer.protocol.messages import VERSION, Bye, Get, Hello, Ping, Pong, Refused

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(193)
GARBAGE = {
    "nothing": b"",
    "half a length": b"\0\0",
    "length 0": bytes(4),
    "length 2^32-1": b"\xff" * 4 + bytes(1000),
    "length of a megabyte before the greeting": struct.pack(">IB", 1 << 20, 1),
    "zeros": bytes(100_000),
    "random": random.Random(1).randbytes(100_000),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS hello": TLS_HELLO,
    "unknown type": b"\0\0\0\2\xc8\x90",
    "no MessagePack": b"\0\0\0\3\x01\xc1\xc1",
    "other fields": b"\0\0\0\4\x01\x92\xa1x",
    "huge array": b"\0\0\0\6\x01\xdd\xff\xff\xff\xff",
    "wrong version": encode_control(Hello(VERSION + 1, b"")),
    "no greeting": encode_control(Ping(1)),
    "data first": encode_data_header(0, 5) + b"abcde",
    "a greeting cut short": encode_control(Hello(VERSION, b"x" * 500))[:-1],
}


async def assert_serves(site: Site, running: Running, *, secure: bool = False) -> None:
    async with open_client(running, site.ticket(running), site.client("ws-1") if secure else None) as client:
        await client.put(b"an honest object")
        assert await client.gather(site, 1)
    await wait_until(lambda: running.node.flows == 0)


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_before_the_greeting(site: Site, node: Running, kind: str) -> None:
    with capture_logs() as logs:
        answer = await exchange(node.address, GARBAGE[kind], end=True)
        await wait_until(lambda: len(logs) > 0)
    (line,) = logs
    assert (line["event"], line["code"], line["log_level"]) == ("flow_ended", "protocol", "info")
    if answer:  # it is lost when the node closes with bytes unread
        assert refusals(answer)[-1].code == "protocol"
    await assert_serves(site, node)


def refusals(answer: bytes) -> list[Refused]:
    """Return the refusals in what a node said."""
    reader = FrameReader()
    reader.control_bytes_max, reader.data_allowed = frames.CONTROL_BYTES_MAX, True
    reader.buffer()[: len(answer)] = answer
    reader.received(len(answer))
    return [frame for frame in reader.frames() if isinstance(frame, Refused)]


async def test_a_wrong_version_is_told_which_one_is_spoken(node: Running) -> None:
    (refused,) = refusals(await exchange(node.address, GARBAGE["wrong version"]))
    assert refused.object_id == b""
    assert refused.text == "the peer speaks version 2, this end 1; update the older one"


@pytest.mark.parametrize("kind", ["zeros", "random", "HTTP", "length 2^32-1", "no greeting", "nothing"])
async def test_plain_bytes_on_a_tls_port(site: Site, secure_node: Running, kind: str) -> None:
    with capture_logs() as logs:
        await exchange(secure_node.address, GARBAGE[kind], end=True)
        await wait_until(lambda: len(logs) > 0)
    (line,) = logs
    assert (line["event"], line["code"], line["log_level"]) == ("flow_ended", "unreachable", "info")
    await assert_serves(site, secure_node, secure=True)


async def test_a_tls_client_on_a_plain_port_is_told_nothing_and_ends(site: Site, node: Running) -> None:
    with pytest.raises(FascicleError) as refused:
        async with flow_to(node, site.ticket(node), site.client("ws-1")):
            pass
    assert refused.value.code == "unreachable"
    await assert_serves(site, node)


PUT = announce(noise(3000))
AFTER_GREETING = {
    "a second greeting": lambda ticket: encode_control(Hello(VERSION, ticket)),
    "data without put": lambda _: encode_data_header(0, 5) + b"abcde",
    "put in a body": lambda _: encode_control(PUT) * 2,
    "get in a body": lambda _: encode_control(PUT) + encode_control(Get(bytes(32))),
    "bye in a body": lambda _: encode_control(PUT) + encode_control(Bye()),
    "data at another offset": lambda _: encode_control(PUT) + encode_data_header(1, 5) + b"abcde",
    "data that goes back": lambda _: encode_control(PUT) + (encode_data_header(0, 5) + b"abcde") * 2,
    "unknown flags": lambda _: encode_control(PUT) + encode_data_header(0, 5, 4) + b"abcde",
    "a payload of 2 MiB": lambda _: encode_control(PUT) + encode_data_header(0, 2 << 20),
    "a node's own frame": lambda _: encode_control(Pong(1)),
    "length 2^32-1": lambda _: b"\xff" * 4,
    "an object id of 31 bytes": lambda _: encode_control(Get(bytes(31))),
    "a negative size": lambda _: encode_control(announce(b"").__class__(bytes(32), -1, "raw", False, 0)),
    "17 replicas": lambda _: encode_control(announce(b"x", onward=17)),
}


@pytest.mark.parametrize("kind", AFTER_GREETING)
async def test_what_does_not_fit_the_state_ends_the_flow(site: Site, node: Running, kind: str) -> None:
    ticket = site.ticket(node)
    with capture_logs() as logs:
        await exchange(node.address, encode_control(Hello(VERSION, ticket)), AFTER_GREETING[kind](ticket))
        await wait_until(lambda: len(logs) > 0)
    (line,) = logs
    assert (line["event"], line["code"]) == ("flow_ended", "protocol")
    assert (node.node.flows, node.files("incoming")) == (0, [])
    await assert_serves(site, node)


async def test_after_bye_nothing_more_is_taken(site: Site, node: Running) -> None:
    hello = encode_control(Hello(VERSION, site.ticket(node)))
    late = encode_control(announce(b"late")) + encode_data_header(0, 4, 1) + b"late"
    await exchange(node.address, hello, encode_control(Bye()) + late)
    await wait_until(lambda: node.node.flows == 0)
    assert node.files("objects") == []


async def test_a_flow_comes_byte_by_byte(site: Site, node: Running) -> None:
    data = noise(100)
    said = encode_control(Hello(VERSION, site.ticket(node))) + encode_control(announce(data))
    said += encode_data_header(0, 100, 1) + data + encode_control(Bye())
    assert raw_id(data) in await exchange(node.address, *(said[index : index + 1] for index in range(len(said))))


@pytest.mark.parametrize("secure", [False, True])
async def test_a_client_that_says_nothing_is_left(site: Site, tmp_path, secure: bool, autojump_clock) -> None:
    async with open_node(site, tmp_path, secure=secure) as running:
        started = trio.current_time()
        with capture_logs() as logs:
            answer = await exchange(running.address)
            assert [refused.text for refused in refusals(answer)] == ([] if secure else ["no greeting within 10 s"])
            await wait_until(lambda: len(logs) > 0)
        assert 10 <= trio.current_time() - started < 20
    assert [(line["event"], line["code"]) for line in logs] == [("flow_ended", "protocol")]


async def test_a_client_that_falls_silent_in_an_object_is_left(site: Site, node: Running, autojump_clock) -> None:
    async with flow_to(node, site.ticket(node)) as flow:
        await flow._send(encode_control(PUT), encode_data_header(0, 9), bytes(9))
        started = trio.current_time()
        with pytest.raises(ProtocolError, match="nothing came for 300 s"):
            async for _ in flow.frames():
                pass
        assert 300 <= trio.current_time() - started < 320
    assert node.files("incoming") == []


async def test_a_hundred_bad_connections_at_once_harm_no_good_one(site: Site, node: Running) -> None:
    kinds = [data for name, data in GARBAGE.items() if name != "nothing"]
    async with open_client(node, site.ticket(node)) as client, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(exchange, node.address, kinds[number % len(kinds)])
            if number % 10 == 0:
                await client.put(noise(100_000, seed=number))
        assert len(await client.gather(site, 10)) == 10
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ticketed", [False, True])
async def test_text_that_is_not_utf_8_is_a_protocol_error(site: Site, node: Running, ticketed: bool) -> None:
    hello = encode_control(Hello(VERSION, site.ticket(node))) if ticketed else b""
    body = b"\x03\x95\xc4\x20" + bytes(32) + b"\x01\xa3\xff\xfe\xfd\xc2\x00"
    with capture_logs() as logs:
        await exchange(node.address, hello, struct.pack(">I", len(body)) + body, end=True)
        await wait_until(lambda: len(logs) > 0)
    assert [(line["event"], line["code"]) for line in logs] == [("flow_ended", "protocol")]
