import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from nodes.objectfile import CHECKED_BYTES, HEADER_BYTES, Header, Record, decode_header, encode_header
from transfer.errors import CorruptError, StorageError
from transfer.objects import Identity

UID_FIELDS = [name for name in Identity.__struct_fields__ if name.endswith("_uid")]
TEXT_FIELDS = [name for name in Identity.__struct_fields__ if name != "any_file"]
uids = st.text("0123456789.", max_size=64)
texts = st.text(st.characters(exclude_categories=["C"]), max_size=64)
identities = st.builds(
    Identity, any_file=st.booleans(), **{name: uids if name in UID_FIELDS else texts for name in TEXT_FIELDS}
)
records = st.builds(
    Record,
    object_id=st.binary(min_size=32, max_size=32).map(bytes.hex),
    size_bytes=st.integers(0, 1 << 46),
    stored_bytes=st.integers(0, 1 << 46),
    encoding=st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=32),
    identity=identities,
)
headers = st.builds(Header, record=records, stored_digest=st.binary(min_size=32, max_size=32), partial=st.booleans())
SAMPLE = Header(
    record=Record(
        object_id="ab" * 32,
        size_bytes=7,
        stored_bytes=5,
        encoding="zstd",
        identity=Identity(patient_id="A", modality="CT"),
    ),
    stored_digest=bytes(range(32)),
)


@given(headers)
def test_a_header_is_2048_bytes_and_comes_back_but_for_long_values(header):
    data = encode_header(header)
    found = decode_header(data)
    assert len(data) == HEADER_BYTES
    assert msgspec.structs.replace(found, record=header.record) == header
    before, after = header.record.identity, found.record.identity
    assert msgspec.structs.replace(found.record, identity=before) == header.record
    for name in TEXT_FIELDS:
        assert getattr(before, name).startswith(getattr(after, name))
    assert all(getattr(before, name) == getattr(after, name) for name in UID_FIELDS)


@given(st.builds(Identity, **dict.fromkeys(TEXT_FIELDS, st.just("\U0001f5ff" * 64))))
def test_the_largest_identity_fits(identity):
    header = msgspec.structs.replace(SAMPLE, record=msgspec.structs.replace(SAMPLE.record, identity=identity))
    found = decode_header(encode_header(header)).record.identity
    assert found.patient_name == "\U0001f5ff" * 20


def test_ascii_values_are_never_cut():
    identity = Identity(any_file=True, **dict.fromkeys(TEXT_FIELDS, "x" * 64))
    header = msgspec.structs.replace(SAMPLE, record=msgspec.structs.replace(SAMPLE.record, identity=identity))
    assert decode_header(encode_header(header)) == header


def test_the_layout_is_the_documented_one():
    data = encode_header(SAMPLE)
    assert data[:16] == b"fascicle" + bytes([0, 1, 8, 0, 0, 0, 0, 0])
    assert data[16:40] == bytes(24)
    assert data[40:72] == b"\xab" * 32
    assert (data[72:80], data[80:88]) == ((7).to_bytes(8, "big"), (5).to_bytes(8, "big"))
    assert data[88:120] == bytes(range(32))
    assert data[120:152] == b"zstd".ljust(32, b"\0")
    length = int.from_bytes(data[152:154], "big")
    assert msgspec.msgpack.decode(data[160 : 160 + length]) == {"patient_id": "A", "modality": "CT"}
    assert data[160 + length : 2016] == bytes(1856 - length)
    assert data[2016:] == blake3(data[:2016]).digest()


def test_any_flipped_bit_is_found():
    data = encode_header(SAMPLE)
    for bit in range(8 * HEADER_BYTES):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptError):
            decode_header(broken)


@pytest.mark.parametrize("length", [0, 1, 16, 159, 2016, 2047])
def test_a_short_header_is_corrupt(length):
    with pytest.raises(CorruptError):
        decode_header(encode_header(SAMPLE)[:length])


def resealed(offset: int, octets: bytes) -> bytes:
    checked = bytearray(encode_header(SAMPLE)[:CHECKED_BYTES])
    checked[offset : offset + len(octets)] = octets
    return bytes(checked) + blake3(checked).digest()


@pytest.mark.parametrize(
    ("offset", "octets", "error"),
    [
        (0, b"Fascicle", CorruptError),
        (8, b"\0\2", StorageError),
        (10, b"\x10\0", StorageError),
        (15, b"\2", StorageError),
        (16, b"\0\1", StorageError),
        (160, b"\xc1", CorruptError),
    ],
)
def test_sound_headers_of_other_kinds_are_told_apart(offset, octets, error):
    with pytest.raises(error):
        decode_header(resealed(offset, octets))
