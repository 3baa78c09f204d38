"""Every image encoding gives every image back bit for bit, in any pieces, within the memory that it promises."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.encodings.images import Image
from transfer.dicom.pixels import locate_pixels
from transfer.encodings import IMAGE_ENCODINGS, encode_checked, get_encoding
from transfer.encodings.codecs import Form, load_codec
from transfer.encodings.container import CODEC, HEADER_BYTES, PIECE_BYTES, SEGMENT, STRIP_BYTES_MAX, decode_header
from transfer.errors import NotSuitableError

names = pytest.mark.parametrize("name", IMAGE_ENCODINGS)
FAST = [name for name in IMAGE_ENCODINGS if name != "jxl-7"]


@st.composite
def images(draw):
    bits = draw(st.sampled_from([8, 16]))
    samples = draw(st.sampled_from([1, 3]))
    return Image(
        rows=draw(st.integers(1, 40)),
        columns=draw(st.integers(1, 40)),
        samples=samples,
        frames=draw(st.integers(1, 4)),
        bits=bits,
        stored=draw(st.integers(1, bits)),
        signed=draw(st.booleans()),
        planar=samples == 3 and draw(st.booleans()),
        implicit=draw(st.booleans()),
        smooth=draw(st.booleans()),
        stray=draw(st.booleans()),
        padding=draw(st.binary(max_size=9)),
        behind=draw(st.binary(max_size=40)),
        seed=draw(st.integers(0, 1000)),
    )


def decode(name, stored, size, piece=1 << 20):
    decoder = get_encoding(name).decoder(size)
    out = []
    for start in range(0, len(stored), piece):
        for block in decoder.feed(stored[start : start + piece]):
            assert memoryview(block).nbytes <= 1 << 20
            out.append(bytes(block))
    decoder.finish()
    return b"".join(out)


def segments(name, stored, size):
    """Return the method of each segment."""
    shape = decode_header(memoryview(stored)[:HEADER_BYTES], stored[5], size)
    offset, methods = HEADER_BYTES, []
    for piece in shape.pieces(size):
        method, length = SEGMENT.unpack_from(stored, offset)
        methods.append((method, piece.rows))
        offset += SEGMENT.size + length
    assert offset == len(stored)
    return methods


@pytest.mark.parametrize("name", FAST)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(image=images(), piece=st.integers(1, 5000))
def test_any_layout_comes_back(name, image, piece):
    data = image.encode()
    encoding = get_encoding(name)
    stored = encoding.encode(data)
    assert len(stored) <= len(data) + HEADER_BYTES + SEGMENT.size * (2 + image.frames * 3)
    assert decode(name, stored, len(data)) == data
    assert decode(name, stored, len(data), piece) == data


@names
@pytest.mark.parametrize(
    "image",
    [
        Image(signed=True), Image(bits=8, stored=8), Image(stored=1), Image(stored=16), Image(rows=1, columns=1),
        Image(samples=3, bits=8, stored=8, planar=True), Image(samples=3, bits=16, frames=2), Image(stray=True),
        Image(rows=1, columns=4000), Image(rows=4000, columns=1), Image(rows=64, columns=64, padding=b"odd"),
    ],
)  # fmt: skip
def test_each_encoding_on_each_layout(name, image):
    data = image.encode()
    assert decode(name, get_encoding(name).encode(data), len(data), 777) == data


@names
def test_extreme_samples_come_back(name):
    for dtype in (np.uint8, np.uint16):
        ends = np.array([0, 1, np.iinfo(dtype).max, np.iinfo(dtype).max // 2, np.iinfo(dtype).max // 2 + 1], dtype)
        strip = np.resize(ends, (31, 33, 1))
        form = Form(31, 33, 1, strip.itemsize)
        assert np.array_equal(load_codec(name).decode(load_codec(name).encode(strip), form), strip)


@pytest.mark.parametrize("name", FAST)
@given(pieces=st.lists(st.integers(1, 3000), min_size=1, max_size=9), located=st.booleans())
@settings(max_examples=20, deadline=None)
def test_pieces_give_the_stored_form_of_the_whole(name, pieces, located):
    data = Image(frames=5, behind=bytes(100)).encode()
    encoder = get_encoding(name).encoder(locate_pixels(data) if located else None)
    out, at, turn = b"", 0, 0
    while at < len(data):
        out += encoder.feed(data[at : at + pieces[turn % len(pieces)]])
        at, turn = at + pieces[turn % len(pieces)], turn + 1
    assert out + encoder.finish() == get_encoding(name).encode(data)


@names
def test_smooth_images_go_through_the_codec_and_become_smaller(name):
    data = Image(rows=200, columns=200).encode()
    stored = encode_checked(get_encoding(name), data)
    assert len(stored) < 0.7 * len(data)
    assert segments(name, stored, len(data)) == [(1, 0), (CODEC, 200)]


@pytest.mark.parametrize("name", ["shuffle-lz4", "gradient-zstd", "htj2k"])
def test_large_frames_are_cut_into_strips_and_long_tails_into_pieces(name):
    image = Image(rows=2500, columns=1000, frames=2, behind=bytes(3 * PIECE_BYTES))
    data = image.encode()
    stored = get_encoding(name).encode(data)
    methods = segments(name, stored, len(data))
    strips = [rows for _, rows in methods if rows]
    assert sum(strips) == 5000 and max(strips) * 2000 <= STRIP_BYTES_MAX
    assert len(methods) == len(strips) + 1 + 3
    assert decode(name, stored, len(data)) == data


@names
def test_noise_travels_as_it_is(name):
    data = Image(rows=100, columns=100, stored=16, smooth=False).encode()
    stored = get_encoding(name).encode(data)
    assert len(stored) <= len(data) + HEADER_BYTES + 2 * SEGMENT.size
    assert decode(name, stored, len(data)) == data


@names
def test_what_is_no_image_is_not_suitable(name):
    for data in (b"", b"text" * 1000, Image().encode()[:200], Image().encode()[:-1]):
        with pytest.raises(NotSuitableError):
            get_encoding(name).encode(data)
    encoder = get_encoding(name).encoder()
    with pytest.raises(NotSuitableError):
        for _ in range(6):
            assert encoder.feed(b"\0" * 128 + b"DICM" + bytes(1 << 20)) == b""


@pytest.mark.parametrize("name", ["shuffle-lz4", "jxl-1"])
def test_an_object_that_ends_within_its_pixels_is_not_suitable_even_when_frames_are_whole(name):
    data = Image(frames=3, rows=64).encode()
    encoder = get_encoding(name).encoder()
    encoder.feed(data[: -2 * 64 * 20])
    with pytest.raises(NotSuitableError):
        encoder.finish()


class Broken:
    """A codec that fails from the n-th strip on, or gives other samples back."""

    def __init__(self, codec, fails_from=0, wrong=False, error=NotSuitableError):
        self.codec, self.fails_from, self.wrong, self.strips = codec, fails_from, wrong, 0
        self.error = error

    def encode(self, strip):
        self.strips += 1
        if self.strips >= self.fails_from > 0:
            raise self.error("broken")
        return self.codec.encode(strip ^ 1 if self.wrong else strip)

    def decode(self, stored, form):
        return self.codec.decode(stored, form)


def broken(monkeypatch, **how):
    codec = Broken(load_codec("htj2k"), **how)
    real = load_codec.__wrapped__
    monkeypatch.setattr("transfer.encodings.image.load_codec", lambda name: codec if name == "jpegls" else real(name))


FAILURES = [NotSuitableError, RuntimeError, ValueError, MemoryError]


@pytest.mark.parametrize("error", FAILURES)
def test_an_encoder_that_fails_at_once_is_not_suitable(monkeypatch, error):
    broken(monkeypatch, fails_from=1, error=error)
    with pytest.raises(NotSuitableError, match="broken"):
        get_encoding("jpegls").encode(Image(frames=3).encode())


@pytest.mark.parametrize("error", FAILURES)
def test_an_encoder_that_fails_later_is_stood_in_for(monkeypatch, error):
    broken(monkeypatch, fails_from=2, error=error)
    data = Image(frames=3, stored=6, smooth=False).encode()
    stored = get_encoding("jpegls").encode(data)
    assert [method for method, rows in segments("jpegls", stored, len(data)) if rows] == [CODEC, 1, 1]


def test_a_codec_that_gives_other_samples_back_is_found_out(monkeypatch):
    broken(monkeypatch, wrong=True)
    data = Image(rows=50, columns=50, stored=6).encode()
    with pytest.raises(NotSuitableError, match="original"):
        encode_checked(get_encoding("jpegls"), data)
    assert encode_checked(get_encoding("jpegls"), data, prove=False)


def test_an_encoder_that_takes_too_long_is_given_up():
    data = Image(rows=2000, columns=2000).encode()
    with pytest.raises(NotSuitableError, match="too slow"):
        encode_checked(get_encoding("jpegls"), data, seconds_max=0.001)


def test_what_does_not_become_smaller_is_not_suitable():
    with pytest.raises(NotSuitableError, match="smaller"):
        encode_checked(get_encoding("zstd"), np.random.default_rng(1).bytes(5000))


NOISE = """
import numpy as np
from transfer.encodings.codecs import Form, load_codec
codec, random = load_codec("jxl-1"), np.random.default_rng(1)
for bits, components in ((14, 1), (15, 1), (16, 1), (16, 3)) * 3:
    strip = random.integers(0, 1 << bits, (256, 256, components)).astype("<u2")
    assert codec.decode(codec.encode(strip), Form(*strip.shape, 2)).tobytes() == strip.tobytes()
"""


def test_noise_of_all_bits_does_not_end_the_process():
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", NOISE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def two_colours_of_one_hash():
    """The fewest pixels: libjxl's effort 1 makes both the same entry of its palette."""
    strip = np.full((1, 17, 3), (2, 105, 157), np.uint8)
    strip[0, 0], strip[0, 16] = (83, 114, 56), 0  # black, so that lowering changes nothing
    return [strip]


def noise_beside_calm(rows, calm_rows):
    """Libjxl's effort 1 on processors with AVX-512 loses bits of noise that the rows that it samples do not show."""
    random = np.random.default_rng(1)
    for _ in range(100):
        strip = random.integers(0, 256, (rows, 256, 3)).astype(np.uint8)
        strip[(rows - calm_rows) // 2 :][:calm_rows] = 7
        yield strip


@pytest.mark.parametrize(
    "strips",
    [two_colours_of_one_hash(), noise_beside_calm(56, 0), noise_beside_calm(256, 16)],
    ids=["palette", "few-rows", "calm-middle"],
)
def test_jxl_1_gives_colours_back_that_libjxl_at_effort_1_does_not(strips):
    codec = load_codec("jxl-1")
    wrong = [
        strip for strip in strips if not np.array_equal(codec.decode(codec.encode(strip), Form(*strip.shape, 1)), strip)
    ]
    assert len(wrong) == 0


def test_importing_the_encodings_imports_no_numpy():
    import subprocess
    import sys

    code = "import sys, transfer.encodings, nodes.digests; sys.exit(bool({'numpy', 'imagecodecs'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("folder", ["ct_head", "wg04/REF", "sts"])
def test_real_images(real_data, folder):
    from tests.dicom.test_real import real_files

    number = 0
    for count, (path, data) in enumerate(real_files(real_data / folder)):
        if count % (40 if folder != "wg04/REF" else 3):
            continue
        for name in FAST:
            number += 1
            try:
                encode_checked(get_encoding(name), data)
            except NotSuitableError as error:
                assert "original" not in str(error), (path, name)
    assert number >= 20


def test_images_are_not_alike():
    assert dataclasses.replace(Image(), seed=2).encode() != Image().encode()
