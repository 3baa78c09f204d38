"""Heartbeats: one small datagram, which nobody but the node can make and nobody can change."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from transfer import heartbeat
from transfer.errors import ProtocolError, UnauthorisedError
from transfer.heartbeat import DATAGRAM_BYTES_MAX, SIGNATURE_BYTES, Heartbeat

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
BEAT = Heartbeat("node-1", "ab" * 16, 1_700_000_000_000_000_000, 7, "192.0.2.1", 4242, "host-a", 1 << 40, 12, 3, 2)

counts = st.integers(0, 1 << 62)
sizes = st.integers(0, 1 << 46)
texts = st.text(max_size=60)
beats = st.builds(
    Heartbeat,
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,63}", fullmatch=True),
    texts,
    counts,
    counts,
    texts,
    st.integers(1, 65535),
    texts,
    sizes,
    sizes,
    counts,
    counts,
)


@given(beats)
def test_what_was_signed_is_what_is_read(beat: Heartbeat) -> None:
    datagram = heartbeat.sign(beat, KEY)
    assert len(datagram) <= DATAGRAM_BYTES_MAX
    assert heartbeat.read_unverified(datagram) == beat
    assert heartbeat.verify(datagram, KEY.public_key()) == beat


def test_another_node_s_signature_is_refused() -> None:
    with pytest.raises(UnauthorisedError, match="heartbeat of node-1"):
        heartbeat.verify(heartbeat.sign(BEAT, OTHER), KEY.public_key())


def test_a_signature_made_for_another_purpose_is_refused() -> None:
    body = heartbeat.sign(BEAT, KEY)[:-SIGNATURE_BYTES]
    for signature in (KEY.sign(body), KEY.sign(b"fascicle ticket 1\n" + body)):
        with pytest.raises(UnauthorisedError):
            heartbeat.verify(body + signature, KEY.public_key())


def test_every_flipped_bit_is_refused() -> None:
    datagram = heartbeat.sign(BEAT, KEY)
    for bit in range(len(datagram) * 8):
        altered = bytearray(datagram)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises((UnauthorisedError, ProtocolError)):
            heartbeat.verify(bytes(altered), KEY.public_key())


def test_every_cut_is_refused() -> None:
    datagram = heartbeat.sign(BEAT, KEY)
    for end in range(len(datagram)):
        with pytest.raises((UnauthorisedError, ProtocolError)):
            heartbeat.verify(datagram[:end], KEY.public_key())


def test_a_longer_datagram_than_any_path_carries_is_refused_before_it_is_read() -> None:
    whole = heartbeat.sign(BEAT, KEY)
    with pytest.raises(ProtocolError, match="heartbeat of 1201 bytes"):
        heartbeat.read_unverified(whole.ljust(DATAGRAM_BYTES_MAX + 1, b"\0"))


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises((UnauthorisedError, ProtocolError)):
        heartbeat.verify(garbage, KEY.public_key())


@pytest.mark.parametrize(
    ("field", "value"),
    [("node_id", "../x"), ("port", 0), ("port", 65536), ("free_bytes", -1), ("sequence", -1), ("host", "x" * 256)],
)
def test_values_out_of_range_are_refused_though_they_are_signed(field: str, value: object) -> None:
    fields = {name: getattr(BEAT, name) for name in BEAT.__struct_fields__} | {field: value}
    with pytest.raises(ProtocolError, match="cannot be read"):
        heartbeat.verify(heartbeat.sign(Heartbeat(**fields), KEY), KEY.public_key())
