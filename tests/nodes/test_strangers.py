"""A node and a crowd that shows no ticket: it is bounded, it gives way, and nobody who has one is refused for it."""

import errno

import pytest
import trio

from nodes import server
from tests.nodes.kit import DEADLINE_S, Running, Site, flow_to, open_client, open_node, wait_until
from tests.nodes.test_hostile import refusals
from transfer.errors import BusyError
from transfer.lobby import Lobby
from transfer.places import Places
from transfer.protocol.frames import encode_control
from transfer.protocol.messages import VERSION, Hello, Ping, Pong


async def is_closed(stream: trio.SocketStream) -> bool:
    with trio.fail_after(DEADLINE_S):
        try:
            return await stream.receive_some(1) == b""
        except trio.BrokenResourceError:
            return True


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00", b"\0\0\1\0\1"], ids=["nothing", "half a hello", "half"])
async def test_those_who_say_nothing_give_way_to_whoever_does(
    site: Site, tmp_path, monkeypatch, secure: bool, said: bytes
) -> None:
    monkeypatch.setattr(server, "STRANGERS_MAX", 6)
    context = site.client("ws-1") if secure else None
    async with open_node(site, tmp_path, secure=secure) as running:
        async with open_client(running, site.ticket(running), context) as known:
            crowd = [await trio.open_tcp_stream("127.0.0.1", running.address.port) for _ in range(18)]
            for stream in crowd[12:]:
                await stream.send_all(said)
            assert [await is_closed(stream) for stream in crowd[:12]] == [True] * 12
            assert await known.ask(Ping(1)) == Pong(1)
            async with open_client(running, site.ticket(running), context) as newcomer:
                await newcomer.put(b"an honest object")
                assert await newcomer.gather(site, 1)
            text = running.node.metrics.registry.get_sample_value("fascicle_node_turned_out_total")
            assert text is not None
            assert 12 <= text <= 14
        for stream in crowd:
            await stream.aclose()


async def test_a_certificate_alone_makes_nobody_known(site: Site, secure_node: Running, monkeypatch) -> None:
    async with open_node(site, secure_node.folder.parent / "small", secure=True) as running:
        doors = server.make_doors(running.node, 1 << 16)
        assert (len(doors.lobby), len(doors.places)) == (0, 0)
    monkeypatch.setattr(server, "STRANGERS_MAX", 5)
    async with open_node(site, secure_node.folder.parent / "other", secure=True) as running:
        raw = [await trio.open_tcp_stream("127.0.0.1", running.address.port) for _ in range(12)]
        silent = [trio.SSLStream(one, site.client("ws-1"), server_hostname="127.0.0.1") for one in raw]
        ended = 0
        for stream in silent:
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError:
                ended += 1
        async with open_client(running, site.ticket(running), site.client("ws-1")) as client:
            assert await client.ask(Ping(7)) == Pong(7)
        assert ended == 7
        for stream in raw:
            await stream.aclose()


async def test_whoever_finds_no_place_hears_when_to_come_back(site: Site, node: Running, monkeypatch) -> None:
    monkeypatch.setattr(server, "make_doors", small_doors)
    async with open_node(site, node.folder.parent / "small") as running:
        reading = site.ticket(running, rights=["get"])
        async with open_client(running, reading), open_client(running, reading):
            with pytest.raises(BusyError, match=r"2 connections here, .*; try again in 1 s") as busy:
                async with flow_to(running, reading):
                    pass
            assert busy.value.retry_after_s == 1.0
            async with open_client(running, site.ticket(running, rights=["get"], holder="ws-2")) as other:
                assert await other.ask(Ping(1)) == Pong(1)
        await wait_until(lambda: running.node.flows == 0)
        async with open_client(running, reading) as again:
            assert await again.ask(Ping(2)) == Pong(2)


async def test_the_refusal_is_a_frame_of_the_protocol(site: Site, node: Running, monkeypatch) -> None:
    monkeypatch.setattr(server, "make_doors", small_doors)
    async with open_node(site, node.folder.parent / "small") as running:
        reading = site.ticket(running, rights=["get"])
        async with (
            open_client(running, reading),
            open_client(running, reading),
            await trio.open_tcp_stream("127.0.0.1", running.address.port) as third,
        ):
            await third.send_all(encode_control(Hello(VERSION, reading)))
            answer = b""
            with trio.fail_after(DEADLINE_S):
                async for piece in third:
                    answer += bytes(piece)
            (refused,) = refusals(answer)
            assert (refused.object_id, refused.code) == (b"", "busy")


def small_doors(node, limit):
    return server.Doors(Lobby(10, 10), Places(4, 2))


async def test_no_descriptors_left_ends_nothing(site: Site, tmp_path, monkeypatch) -> None:
    tries = 0
    accept = trio.SocketListener.accept

    async def failing(self: trio.SocketListener) -> trio.SocketStream:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    started_s = trio.current_time()
    async with open_node(site, tmp_path) as running:
        async with open_client(running, site.ticket(running)) as client:
            assert await client.ask(Ping(1)) == Pong(1)
        assert trio.current_time() - started_s >= 0.3  # it waits between, and does not spin
    assert tries < 10
