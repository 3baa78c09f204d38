"""TCP_INFO of a real connection, what is made of it, and what bound a transfer."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from transfer.addresses import Address
from transfer.control import sockets
from transfer.control.bounds import Evidence, bound_by
from transfer.control.sampling import fresh_rtt_s, has_backlog, rtt_s, sample, sample_of_bytes
from transfer.control.tcp_info import LAYOUT, TcpInfo, parse, read
from transfer.errors import SettingsError
from transfer.stream import connect, listen, port_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        yield client, stack.enter_context(listener.accept()[0])


@linux
def test_a_real_connection_counts_what_was_acknowledged(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    first = read(client)
    client.sendall(b"x" * 100_000)
    received = 0
    while received < 100_000:
        received += len(server.recv(1 << 20))
    second = read(client)
    assert first is not None and second is not None
    assert (first.acked_bytes, first.sent_bytes, first.notsent_bytes) == (0, 0, 0) or first.acked_bytes == 1
    assert 99_000 <= second.acked_bytes <= 100_001
    assert second.sent_bytes >= 100_000
    assert (second.retransmits, second.resent_bytes, second.notsent_bytes) == (0, 0, 0)
    assert 0 < second.min_rtt_s <= second.rtt_s * 2 < 1
    assert 500 < second.mss_bytes < 70_000 and second.window_packets >= 10
    assert second.busy_s >= 0 and second.rwnd_limited_s >= 0


@linux
def test_a_peer_that_does_not_read_shows(pair: tuple[socket.socket, socket.socket]) -> None:
    client, _ = pair
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            client.send(b"x" * 65_536)
    info = read(client)
    assert info is not None and info.notsent_bytes > 0
    assert has_backlog({1: info})


def test_what_is_no_tcp_or_closed_has_no_info() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert read(udp) is None
    assert read(udp) is None


@given(st.binary(max_size=LAYOUT.size - 1))
def test_a_short_answer_is_none(raw: bytes) -> None:
    assert parse(raw) is None


@given(st.binary(min_size=LAYOUT.size, max_size=LAYOUT.size + 64))
def test_any_long_answer_is_numbers(raw: bytes) -> None:
    info = parse(raw)
    assert info is not None and info.rtt_s >= 0


def info(
    acked: int = 0, sent: int = 0, resent: int = 0, busy_s: float = 0.0, rwnd_s: float = 0.0, rtt_s: float = 0.01
) -> TcpInfo:
    return TcpInfo(1448, rtt_s, 0.01, 10, 0, acked, sent, resent, 0, 0, busy_s, rwnd_s, 0.0)


def test_a_sample_is_the_difference_and_new_flows_count_from_their_beginning() -> None:
    before = {1: info(1000, 1000, 0, 1.0), 2: info(9999, 9999, 99, 9.0)}
    now = {1: info(3000, 3500, 500, 2.0), 3: info(500, 500, 10, 0.5)}
    found = sample(before, now, at_s=9.0, span_s=1.0, open_flows=2, remaining_bytes=7)
    assert found.goodput_bytes_s == 2500
    assert found.retransmit_ratio == pytest.approx(510 / 3000)
    assert found.link_ratio == pytest.approx(0.75)
    assert (found.at_s, found.span_s, found.open_flows, found.rtt_s, found.remaining_bytes) == (9.0, 1.0, 2, 0.01, 7)
    assert found.min_rtt_s == 0.01


def test_a_full_window_of_the_peer_is_not_the_link() -> None:
    assert sample({}, {1: info(busy_s=1.0, rwnd_s=0.9)}, at_s=0, span_s=1, open_flows=1).link_ratio < 0.11
    assert sample({}, {1: info(busy_s=1.0)}, at_s=0, span_s=1, open_flows=1, link_ratio=0.2).link_ratio == 0.2


def test_a_fresh_round_trip_is_that_of_what_was_acknowledged() -> None:
    """The mean of 20 ms moved by an eighth for one acknowledgement of 100 ms, and all the way for hundreds."""
    before = {1: info(acked=1000, rtt_s=0.02), 2: info(acked=0, rtt_s=0.02), 3: info(acked=5, rtt_s=0.001)}
    one = {1: info(acked=1100, rtt_s=0.03)}
    many = {2: info(acked=3_000_000, rtt_s=0.1)}
    idle = {3: info(acked=5, rtt_s=0.001)}
    new = {4: info(acked=100, rtt_s=0.001)}
    assert fresh_rtt_s(before, one | idle | new) == pytest.approx(0.1)
    assert fresh_rtt_s(before, many | idle | new) == pytest.approx(0.1)
    assert fresh_rtt_s(before, {1: info(acked=1100, rtt_s=0.0175)} | many) == pytest.approx(0.01)  # the least known
    assert fresh_rtt_s(before, idle | new) == fresh_rtt_s({}, {}) == 0.0


def test_without_flows_a_sample_is_empty() -> None:
    found = sample({}, {}, at_s=0.0, span_s=0.1, open_flows=0)
    assert (found.goodput_bytes_s, found.retransmit_ratio, found.rtt_s, rtt_s({})) == (0.0, 0.0, 0.0, 0.0)
    assert sample_of_bytes(50, at_s=0.0, span_s=0.5, open_flows=1, link_ratio=1.0).goodput_bytes_s == 100


def waits(**longer: float) -> dict[str, float]:
    return {"source": 1.0, "receiver": 1.0, "link": 1.0, "rate": 0.0} | longer


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(dict.fromkeys(("source", "receiver", "link"), 0.0), 1.0), ""),
        (Evidence(waits(source=9.0), 0.95), "processor"),
        (Evidence(waits(source=9.0), 0.2), "disk"),
        (Evidence(waits(receiver=9.0), 0.95), "receiver"),
        (Evidence(waits(rate=9.0), 0.95), "rate"),
        (Evidence(waits(link=9.0), 0.95), "link"),
        (Evidence(waits(link=9.0), 0.95, 8.0, 1.0, 0.9), "link"),
        (Evidence(waits(link=9.0), 0.95, 8.0, 1.0, 0.1), "processor"),
        (Evidence(waits(link=9.0), 0.30, 8.0, 1.0, 0.1), "link"),
        (Evidence(waits(link=9.0), 0.30, 8.0, 5.0, 0.9), "receiver"),
    ],
)
def test_what_bound_a_transfer(evidence: Evidence, expected: str) -> None:
    assert bound_by(evidence) == expected


@linux
@pytest.mark.parametrize("congestion", [None, "auto", "reno"])
async def test_a_sending_socket_is_set_up(congestion: str | None) -> None:
    async with await listen(Address("127.0.0.1", 0)) as listener:
        stream = await connect(Address("127.0.0.1", port_of(listener)), None, congestion=congestion)
        found = sockets.congestion_of(stream._socket)
        assert found in ({"reno"} if congestion == "reno" else sockets.available())
        assert sockets.is_loss_based(found) == (found != "bbr")
        lowat = stream._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert lowat == sockets.UNSENT_BYTES
        assert stream.tcp_info() is not None
        await stream.aclose()
        assert stream.tcp_info() is None


async def test_a_congestion_control_that_is_not_there_is_named() -> None:
    async with await listen(Address("127.0.0.1", 0)) as listener:
        with pytest.raises(SettingsError, match="no-such"):
            await connect(Address("127.0.0.1", port_of(listener)), None, congestion="no-such")


def test_slow_flows_hold_little_unsent() -> None:
    assert sockets.unsent_bytes(0.25e6 / 4) == 16 << 10  # 2 Mb/s, four flows: 64 KiB, a quarter of a second
    assert sockets.unsent_bytes(3e6) == 300_000
    assert sockets.unsent_bytes(1e9) == 512 << 10


@linux
async def test_little_unsent_data_waits_in_the_kernel() -> None:
    async with await listen(Address("127.0.0.1", 0)) as listener:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(listener))
        async with await listener.accept(), stream:
            sockets.limit_unsent(stream.socket, 16 << 10)
            with trio.move_on_after(0.2):
                await stream.send_all(b"x" * (64 << 20))
            info = read(stream.socket)
            assert info is not None
            assert info.notsent_bytes <= (16 << 10) + 70_000  # one segment of loopback may be over
