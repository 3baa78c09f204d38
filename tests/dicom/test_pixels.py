"""Where the pixel data lies: as pydicom says for real files, and refused where it is not what it says."""

import dataclasses
import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dicom.build import BIG, DEFLATED, FIELDS, UNDEFINED, element, explicit_image, file
from tests.dicom.test_identity import FRAGMENTS, deflate
from tests.dicom.test_real import real_files
from tests.encodings.images import Image
from transfer.dicom.pixels import Kind, locate_pixels
from transfer.errors import NotDicomError, NotSuitableError, TruncatedError

IMAGES = [
    Image(),
    Image(implicit=True),
    Image(samples=3, bits=8, stored=8, rows=5, columns=3),
    Image(samples=3, bits=8, stored=8, planar=True, frames=7, implicit=True),
    Image(signed=True, frames=3, padding=b"more", behind=element(0xFFFCFFFC, "OB", bytes(10)) + bytes(64)),
]


@pytest.mark.parametrize("image", IMAGES)
def test_what_was_written_is_found(image):
    data = image.encode()
    pixels = locate_pixels(data)
    assert data[pixels.offset_bytes :][: len(image.pixels)] == image.pixels
    assert pixels.length_bytes == len(image.pixels) + len(image.padding) + (len(image.pixels) % 2)
    assert pixels.frame_bytes * pixels.frames == len(image.pixels)
    for field in ("rows", "columns", "samples", "frames", "planar", "signed"):
        assert getattr(pixels, field) == getattr(image, field), field
    assert (pixels.bits_allocated, pixels.bits_stored) == (image.bits, image.stored)


def test_the_kind_is_what_compresses_alike():
    assert locate_pixels(Image().encode()).kind == Kind("CT", 16, 1, "MONOCHROME2")


@pytest.mark.parametrize("image", IMAGES)
def test_the_head_is_enough_and_less_of_it_asks_for_more(image):
    data = image.encode()
    pixels = locate_pixels(data)
    assert locate_pixels(data[: pixels.offset_bytes]) == pixels
    for size in range(pixels.offset_bytes):
        with pytest.raises(TruncatedError):
            locate_pixels(data[:size])


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0}, {"columns": 0}, {"samples": 2}, {"samples": 4}, {"bits": 32}, {"frames": 1 << 25},
    ],
)  # fmt: skip
def test_attributes_that_are_no_image_of_ours(change):
    whole = Image().pixels
    image = dataclasses.replace(Image(), **change)
    object.__setattr__(image, "__class__", type("Fixed", (Image,), {"pixels": property(lambda _: whole)}))
    with pytest.raises(NotSuitableError):
        locate_pixels(image.encode())


def test_less_pixel_data_than_its_attributes_say_is_refused():
    data = Image(rows=16).encode().replace(element(0x00280010, "US", b"\x10\0"), element(0x00280010, "US", b"\x11\0"))
    with pytest.raises(NotSuitableError, match="less pixel data"):
        locate_pixels(data)


@pytest.mark.parametrize("frames", [b"0 ", b"x ", b"-1", b"1\\2 ", b"99999999", b"123456789 "])
def test_numbers_of_frames_that_are_none(frames):
    data = Image(frames=2).encode().replace(element(0x00280008, "IS", b"2 "), element(0x00280008, "IS", frames))
    with pytest.raises(NotSuitableError):
        locate_pixels(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" * 30, file(explicit_image(">"), BIG), file(deflate(explicit_image()), DEFLATED),
        file(explicit_image(), "1.2.840.10008.1.2.4.70"),
        file(b"".join(element(*each) for each in FIELDS) + element(0x7FE00010, "OF", bytes(64))),
        file(explicit_image()[:-76] + element(0x7FE00009, "OD", bytes(64)) + element(0xFFFCFFFC, "OB")),
    ],
)  # fmt: skip
def test_what_is_no_uncompressed_image(data):
    with pytest.raises(NotSuitableError):
        locate_pixels(data)


def test_fragments_in_an_uncompressed_syntax_are_never_found():
    with pytest.raises((TruncatedError, NotSuitableError)):
        locate_pixels(file(explicit_image()[:-76] + FRAGMENTS))
    with pytest.raises((TruncatedError, NotSuitableError)):
        locate_pixels(file(explicit_image()[:-76] + element(0x7FE00010, "OW", length=UNDEFINED)))


@given(st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=6)), max_size=5), st.integers(0, 3000))
def test_mutated_files_give_pixels_within_them_or_an_error_of_ours(changes, size):
    data = bytearray(Image(behind=bytes(200)).encode())
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new
    try:
        pixels = locate_pixels(bytes(data[:size]))
    except (NotSuitableError, TruncatedError, NotDicomError):
        return
    assert 132 < pixels.offset_bytes <= size
    assert 0 < pixels.frames * pixels.frame_bytes <= pixels.length_bytes


@pytest.mark.parametrize("folder", ["ct_head", "wg04", "sts"])
def test_real_files(real_data, folder):
    found = 0
    for count, (path, data) in enumerate(real_files(real_data / folder)):
        if count % 9 and folder != "wg04":
            continue
        theirs = pydicom.dcmread(io.BytesIO(data), force=True)
        native = not theirs.file_meta.TransferSyntaxUID.is_compressed and "PixelData" in theirs
        native = native and theirs.BitsAllocated in (8, 16)
        try:
            pixels = locate_pixels(data[: 1 << 20])
        except (NotSuitableError, TruncatedError):
            assert not native, path
            continue
        assert native, path
        assert data[pixels.offset_bytes :][: pixels.length_bytes] == theirs.PixelData
        assert (pixels.rows, pixels.columns, pixels.samples) == (theirs.Rows, theirs.Columns, theirs.SamplesPerPixel)
        found += 1
    assert found >= 10
