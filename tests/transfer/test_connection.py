"""Frames in any pieces give the same messages; what does not fit the state or the limits is refused at once."""

import itertools
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.errors import ProtocolError
from transfer.protocol import connection, frames
from transfer.protocol.connection import CLIENT, SERVER, ClientConnection, Connection, ServerConnection, State
from transfer.protocol.frames import ABANDONED, LAST, Data, FrameReader, encode_control
from transfer.protocol.messages import (
    Bye,
    Check,
    Checked,
    Control,
    Copied,
    Copy,
    Credit,
    Discard,
    Discarded,
    Done,
    FrameType,
    Get,
    Hello,
    List,
    Listed,
    Object,
    Ping,
    Pong,
    Purge,
    Put,
    Refused,
    Reserve,
    Reserved,
    Restore,
    Resume,
    Stored,
    Trash,
    Trashed,
    Welcome,
)

ID = bytes(range(32))
STORED = Stored(b"batch", bytes(64))
SAMPLES: dict[FrameType, Control] = {
    FrameType.HELLO: Hello(1, b"ticket"),
    FrameType.WELCOME: Welcome(1, "node-1", "life", 1 << 20, 1 << 40),
    FrameType.PUT: Put(ID, 5, "raw", False, 0),
    FrameType.STORED: STORED,
    FrameType.REFUSED: Refused(ID, "full", "no room"),
    FrameType.CREDIT: Credit(7),
    FrameType.GET: Get(ID),
    FrameType.PING: Ping(1),
    FrameType.PONG: Pong(1),
    FrameType.BYE: Bye(),
    FrameType.RESUME: Resume(ID, 0),
    FrameType.OBJECT: Object(ID, 5, 5, "raw"),
    FrameType.RESERVE: Reserve("t", 10),
    FrameType.RESERVED: Reserved("t", 1, 2, 3),
    FrameType.CHECK: Check([ID], True),
    FrameType.CHECKED: Checked(STORED, [ID], []),
    FrameType.LIST: List(ID, False, bytes(16)),
    FrameType.LISTED: Listed(b"page", bytes(64)),
    FrameType.COPY: Copy([ID], b"ticket"),
    FrameType.COPIED: Copied(STORED, [Refused(ID, "full", "no room")]),
    FrameType.DISCARD: Discard([ID], "orphan", 60),
    FrameType.RESTORE: Restore([ID]),
    FrameType.PURGE: Purge([ID], False),
    FrameType.DONE: Done([ID], [Refused(ID, "conflict", "not yet")]),
    FrameType.TRASH: Trash(b""),
    FrameType.TRASHED: Trashed([Discarded(ID, "extra", 5, 60)], True),
}
DATA_FRAME = frames.encode_data_header(0, 5, LAST) + b"image"


def feed(end: Connection | FrameReader, wire: bytes, piece: int) -> list[frames.Frame]:
    reader = end if isinstance(end, FrameReader) else end.reader
    got: list[frames.Frame] = []
    rest = memoryview(wire)
    while rest:
        room = reader.buffer()
        count = min(len(room), piece, len(rest))
        room[:count] = rest[:count]
        reader.received(count)
        rest = rest[count:]
        got.extend(end.frames())
    return got


def opened_server() -> ServerConnection:
    server = ServerConnection()
    feed(server, encode_control(SAMPLES[FrameType.HELLO]), 1000)
    server.welcome(Welcome(1, "node-1", "life", 8 << 20, 0))
    return server


def opened_client() -> ClientConnection:
    client = ClientConnection()
    feed(client, encode_control(SAMPLES[FrameType.WELCOME]), 1000)
    return client


@given(
    sizes=st.lists(st.integers(0, frames.PAYLOAD_BYTES_MAX) | st.integers(0, 100), max_size=6),
    piece=st.sampled_from([1, 3, 17, 4096, 300_000, 1 << 22]),
)
def test_objects_come_out_as_they_went_in(sizes: list[int], piece: int) -> None:
    sizes = [min(size, piece * 3000) for size in sizes]
    server = opened_server()
    wire, payloads = b"", [os.urandom(size) for size in sizes]
    for payload in payloads:
        wire += encode_control(Put(ID, len(payload), "raw", False, 0))
        wire += frames.encode_data_header(0, len(payload), LAST) + payload
    got = feed(server, wire, piece)
    assert [bytes(frame.payload) for frame in got if isinstance(frame, Data)] == payloads


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("piece", [1, 2, 1000])
def test_every_control_frame_survives_any_cut(kind: FrameType, piece: int) -> None:
    reader = FrameReader()
    assert feed(reader, encode_control(SAMPLES[kind]) * 2, piece) == [SAMPLES[kind]] * 2
    assert reader.idle


def test_a_control_frame_larger_than_the_common_buffer() -> None:
    client = opened_client()
    big = Checked(Stored(os.urandom(700_000), bytes(64)), [], [])
    assert feed(client, encode_control(big) + encode_control(Pong(5)), 100_000) == [big, Pong(5)]


def _end_in(state: State, *, server: bool) -> Connection:
    end: Connection = opened_server() if server else opened_client()
    if state is State.GREETING:
        return ServerConnection() if server else ClientConnection()
    if state is State.BODY:
        feed(end, encode_control(SAMPLES[FrameType.PUT if server else FrameType.OBJECT]), 1000)
    end.state = state
    return end


@pytest.mark.parametrize(("state", "kind", "server"), list(itertools.product(State, FrameType, [True, False])))
def test_every_cell_of_the_tables(state: State, kind: FrameType, server: bool) -> None:
    end = _end_in(state, server=server)
    wire = DATA_FRAME if kind == FrameType.DATA else encode_control(SAMPLES[kind])
    follower = (SERVER if server else CLIENT).get((state, kind))
    if follower is None:
        with pytest.raises(ProtocolError):
            feed(end, wire, 1000)
        return
    feed(end, wire, 1000)
    assert end.state is (State.OPEN if kind == FrameType.DATA else follower)


@pytest.mark.parametrize("first", [b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0", b"\0\0\0\x01\x63"])
def test_nonsense_is_refused_within_its_first_bytes(first: bytes) -> None:
    with pytest.raises(ProtocolError):
        feed(ServerConnection(), first, 1)


def test_a_length_is_judged_before_room_is_made() -> None:
    server = opened_server()
    with pytest.raises(ProtocolError, match="4294967295"):
        feed(server, struct.pack(">I", 0xFFFFFFFF), 4)
    assert server.reader._large is None


def test_another_version_is_named() -> None:
    with pytest.raises(ProtocolError, match="version 9"):
        feed(ServerConnection(), encode_control(Hello(9, b"")), 100)


def test_fields_that_do_not_fit() -> None:
    with pytest.raises(ProtocolError, match="PUT"):
        feed(opened_server(), encode_control(Put(b"short", 5, "raw", False, 0)), 100)


def test_data_at_a_wrong_offset() -> None:
    server = opened_server()
    feed(server, encode_control(SAMPLES[FrameType.PUT]), 100)
    with pytest.raises(ProtocolError, match="offset 1"):
        feed(server, frames.encode_data_header(1, 4, LAST) + b"mage", 100)


def test_resume_moves_the_offset() -> None:
    server = opened_server()
    feed(server, encode_control(Put(ID, 10, "raw", True, 0)), 100)
    server.resume(Resume(ID, 6))
    got = feed(server, frames.encode_data_header(6, 4, LAST) + b"rest", 100)
    assert got == [Data(6, LAST, b"rest")]


def test_an_abandoned_object_frees_the_flow() -> None:
    server = opened_server()
    feed(server, encode_control(SAMPLES[FrameType.PUT]) + frames.encode_data_header(0, 0, ABANDONED), 100)
    assert server.state is State.OPEN


def test_more_than_the_credit_is_refused_on_both_ends() -> None:
    server = opened_server()
    server.outstanding_bytes = 4
    feed(server, encode_control(SAMPLES[FrameType.PUT]), 100)
    with pytest.raises(ProtocolError, match="credit"):
        feed(server, DATA_FRAME, 100)
    client = opened_client()
    client.credit_bytes = 4
    with pytest.raises(ProtocolError, match="credit"):
        client.data_header(0, 5)


def test_an_end_inside_an_object_is_an_error() -> None:
    server = opened_server()
    feed(server, encode_control(SAMPLES[FrameType.PUT]), 100)
    with pytest.raises(ProtocolError, match="middle"):
        server.end_of_stream()


def test_a_refused_flow_is_closed() -> None:
    client = opened_client()
    feed(client, encode_control(Refused(b"", "busy", "later")), 100)
    assert client.state is State.CLOSED


def test_the_tables_name_only_states_and_frames() -> None:
    assert all(isinstance(state, State) and isinstance(kind, FrameType) for state, kind in {**SERVER, **CLIENT})
    assert connection.State.CLOSED not in {state for state, _ in {**SERVER, **CLIENT}}
