"""Encodings give the original back, in any pieces, and never more than they promise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.encodings import ENCODINGS, get_encoding
from transfer.errors import CorruptError, SettingsError

names = pytest.mark.parametrize("name", sorted(ENCODINGS))


def decode(name: str, stored: bytes, size: int, piece: int) -> bytes:
    decoder = get_encoding(name).decoder(size)
    out = b"".join(
        bytes(block) for start in range(0, len(stored), piece) for block in decoder.feed(stored[start : start + piece])
    )
    decoder.finish()
    return out


@names
@given(data=st.binary(min_size=1, max_size=5000), repeat=st.integers(1, 500), piece=st.integers(1, 100_000))
def test_whole_and_streamed_forms_decode_to_the_original(name: str, data: bytes, repeat: int, piece: int) -> None:
    data = data * repeat
    encoding = get_encoding(name)
    encoder = encoding.encoder()
    streamed = encoder.feed(data[: len(data) // 2]) + encoder.feed(data[len(data) // 2 :]) + encoder.finish()
    assert decode(name, bytes(encoding.encode(data)), len(data), max(piece, len(data) // 50)) == data
    assert decode(name, streamed, len(data), max(piece, len(data) // 50)) == data


@names
def test_more_than_promised_is_refused_before_it_is_all_in_memory(name: str) -> None:
    bomb = bytes(get_encoding(name).encode(bytes(64 << 20)))
    decoder = get_encoding(name).decoder(3 << 20)
    given_bytes = 0
    with pytest.raises(CorruptError):
        for block in decoder.feed(bomb):
            given_bytes += len(bytes(block))
    assert given_bytes <= 3 << 20


@names
def test_an_early_end_is_refused(name: str) -> None:
    stored = bytes(get_encoding(name).encode(b"fascicle" * 1000))
    with pytest.raises(CorruptError):
        decode(name, stored[:-1], 8000, 1000)


def test_bytes_behind_a_zstd_frame_are_refused() -> None:
    with pytest.raises(CorruptError):
        decode("zstd", bytes(get_encoding("zstd").encode(b"image")) + b"more", 5, 1000)


def test_garbage_is_not_zstd() -> None:
    with pytest.raises(CorruptError):
        decode("zstd", b"GET / HTTP/1.1\r\n", 100, 7)


def test_an_unknown_encoding_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="raw, zstd"):
        get_encoding("gzip")
