"""Arrays in one another, deeper than Python goes, behind the last field of what a peer sends: refused as unreadable."""

import base64
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import trail
from nodes import objectfile
from tests.transfer.test_connection import SAMPLES
from transfer import client, heartbeat, joining, pages, receipts, tickets
from transfer.api import Go
from transfer.errors import (
    CorruptError,
    FascicleError,
    ProtocolError,
    SettingsError,
    UnauthorisedError,
    UnreachableError,
)
from transfer.heartbeat import DATAGRAM_BYTES_MAX, Heartbeat
from transfer.membership import Trust
from transfer.objects import Identity
from transfer.pages import Page
from transfer.protocol import frames
from transfer.protocol.messages import FrameType, Listed, Stored
from transfer.receipts import Receipt, ReceiptBatch
from transfer.tickets import Ticket

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
BEAT = Heartbeat("n", "", 1, 1, "h", 1, "", 1, 1, 1, 1)
BATCH = ReceiptBatch("n", "", "", [])
PAGE = Page("n", "", b"", b"", b"", True, [], [], [])
TICKET = Ticket("t", "ws-1", "", ["get"], [], 1, 1, 1.0)
DEPTHS = (1050, 100_000)


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def behind(struct: msgspec.Struct, depth: int) -> bytes:
    """Return the struct with one more element, a nest."""
    body = msgspec.msgpack.encode(struct)
    assert 0x90 <= body[0] < 0x9F
    return bytes([body[0] + 1]) + body[1:] + nested(depth)


def read_batch(body: bytes) -> object:
    return receipts.verify(Stored(body, KEY.sign(receipts.CONTEXT + body)), PUBLIC)


def read_page(body: bytes) -> object:
    return pages.verify(Listed(body, KEY.sign(pages.CONTEXT + body)), PUBLIC, node_id="n", after=b"", nonce=b"")


def read_ticket(body: bytes) -> object:
    return tickets.verify(body + KEY.sign(tickets.CONTEXT + body), PUBLIC, now_s=0.0)


IN_A_RECEIPT = behind(Receipt(bytes(32), 1, 1, "raw", ["n"], Identity()), 1050)
READERS: list[tuple[Callable[[bytes], object], bytes, type[FascicleError]]] = [
    (read_batch, behind(BATCH, 1050), ProtocolError),
    (read_batch, behind(BATCH, 100_000), ProtocolError),
    (read_batch, msgspec.msgpack.encode(BATCH)[:-1] + b"\x91" + IN_A_RECEIPT, ProtocolError),
    (read_page, behind(PAGE, 1050), ProtocolError),
    (read_page, behind(PAGE, 100_000), ProtocolError),
    (read_ticket, behind(TICKET, 1050), UnauthorisedError),
    (objectfile._decode_identity, b"\x81\xa1x" + nested(1050), CorruptError),
]


@pytest.mark.parametrize(("read", "body", "error"), READERS)
def test_a_nest_behind_the_last_field_is_refused(
    read: Callable[[bytes], object], body: bytes, error: type[FascicleError]
) -> None:
    with pytest.raises(error):
        read(body)


def test_a_nest_fits_a_heartbeat_and_is_refused() -> None:
    datagram = behind(BEAT, 1050) + bytes(64)
    assert len(datagram) < DATAGRAM_BYTES_MAX
    with pytest.raises(ProtocolError, match="cannot be read"):
        heartbeat.read_unverified(datagram)


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.name)
def test_a_nest_in_or_behind_a_control_message_is_refused(kind: FrameType) -> None:
    for body in (behind(SAMPLES[kind], 1050), b"\x91" + nested(1050), b"\x92\xc4\x00" + nested(1050)):
        with pytest.raises(ProtocolError):
            frames._decode(kind, body)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("text", ["%s", '{"x": %s}'])
def test_a_nest_in_a_text_of_a_peer_is_refused(text: str, depth: int) -> None:
    for body in (text % ("[" * depth), text % ("[" * depth + "]" * depth), text % ('{"x":' * depth)):
        for kind in (Go, Trust):
            with pytest.raises(ProtocolError, match="is not a"):
                client._decode(body.encode(), kind)
        assert isinstance(client._problem(500, body.encode()), UnreachableError)
        assert isinstance(client._problem(400, body.encode()), ProtocolError)
        with pytest.raises(SettingsError):
            joining.decode_token(joining.PREFIX + base64.urlsafe_b64encode(body.encode()).decode())
        with pytest.raises(CorruptError):
            trail.last(line_of(body.encode()), PUBLIC)


def line_of(body: bytes) -> bytes:
    """Return a line of an audit trail that the gateway's key signed."""
    digest = "ab" * 32
    return f"{digest} {KEY.sign(trail.CONTEXT + digest.encode()).hex()} ".encode() + body + b"\n"
