"""Where a file's uncompressed pixel data lies, and how it is laid out (PS3.3 C.7.6.3, PS3.5 8.1.1).

Read from the file's first bytes alone. The length of the pixel data may pass what its attributes say (padding, an odd
last byte); less of it than they say is refused, and so is what is compressed, big endian or not of 8 or 16 bits: such
an object is not an image here, only bytes. Refuses to do: reading pixels, judging whether they make sense.
"""

import struct
from typing import Final, NamedTuple

from typing_extensions import Buffer

from transfer.dicom import syntaxes
from transfer.dicom.part10 import read_file_meta
from transfer.dicom.runs import Wanted
from transfer.dicom.text import clean_text
from transfer.dicom.walk import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Layout, Walk
from transfer.errors import NotDicomError, NotSuitableError, TruncatedError

_MODALITY: Final = 0x00080060
_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
_ROWS, _COLUMNS, _ALLOCATED, _STORED, _SIGNED = 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103
_PIXEL_DATA: Final = 0x7FE00010
_WANTED: Final = Wanted(
    {_MODALITY, _SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _SIGNED},
    last=_PIXEL_DATA - 1,
)
_LAYOUTS: Final = {syntaxes.IMPLICIT_LITTLE: IMPLICIT_LITTLE, syntaxes.EXPLICIT_LITTLE: EXPLICIT_LITTLE}
_PREAMBLE_BYTES: Final = 132  # with "DICM"
FRAMES_MAX: Final = 1 << 24


class Kind(NamedTuple):
    """Images that compress alike."""

    modality: str
    bits_allocated: int
    samples: int
    photometric: str


class Pixels(NamedTuple):
    """Native pixel data: `length_bytes` from byte `offset_bytes` of the file; the frames come first in it.

    `planar`: samples of a frame lie in planes, one after the other. `signed` and `bits_stored` are only what the file
    says: the bits above may hold anything.
    """

    offset_bytes: int
    length_bytes: int
    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    planar: bool
    signed: bool
    modality: str
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """The length of one frame."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8

    @property
    def kind(self) -> Kind:
        """The kind of image that it is."""
        return Kind(self.modality, self.bits_allocated, self.samples, self.photometric)


def locate_pixels(head: Buffer) -> Pixels:
    """Return where the pixel data is of the file that `head` begins.

    Raises:
        NotSuitableError: it has none that is uncompressed, little endian, of 8 or 16 bits, and as long as it should be.
        TruncatedError: `head` ends before the pixel data begins; give more of it.
    """
    with memoryview(head) as raw, raw.cast("B") as view:
        try:
            return _locate(view)
        except NotDicomError as error:
            raise NotSuitableError("not an image: not DICOM") from error


def _locate(view: memoryview) -> Pixels:
    if view.nbytes <= _PREAMBLE_BYTES or (meta := read_file_meta(view)).data_set_offset == view.nbytes:
        raise TruncatedError("the file meta information does not end within these bytes")
    layout = _LAYOUTS.get(meta.transfer_syntax_uid)
    if layout is None:
        raise NotSuitableError("not an image here: compressed, deflated or big endian")
    walk = Walk(layout, _WANTED)
    walk.feed(view, meta.data_set_offset, until_passed=True)
    if not walk.passed:
        raise TruncatedError("the pixel data does not begin within these bytes")
    offset_bytes, length_bytes = _pixel_element(view, walk.stopped_at, walk.layout)
    return _judge(_describe(walk.values, offset_bytes, length_bytes))


def _pixel_element(view: memoryview, offset: int, layout: Layout) -> tuple[int, int]:
    """Return where the value of the element at `offset` begins, and how long it is."""
    try:
        group, element, *rest = layout.header(view, offset)
        if group << 16 | element != _PIXEL_DATA:
            raise NotSuitableError("not an image: no pixel data")
        if layout.implicit:
            return offset + 8, int(rest[0])
        if rest[0] not in (b"OW", b"OB"):
            raise NotSuitableError("not an image here: pixel data that is neither OW nor OB")
        return offset + 12, int(layout.long_length(view, offset + 8)[0])
    except struct.error as error:
        raise TruncatedError("the pixel data does not begin within these bytes") from error


def _describe(values: dict[int, bytes], offset_bytes: int, length_bytes: int) -> Pixels:
    def number(tag: int, default: int = 0) -> int:
        return int.from_bytes(values.get(tag, b"")[:2], "little") or default

    return Pixels(
        offset_bytes=offset_bytes,
        length_bytes=length_bytes,
        rows=number(_ROWS),
        columns=number(_COLUMNS),
        samples=number(_SAMPLES, 1),
        frames=_frames(values.get(_FRAMES, b"")),
        bits_allocated=number(_ALLOCATED),
        bits_stored=number(_STORED),
        planar=number(_PLANAR) == 1 and number(_SAMPLES, 1) > 1,
        signed=number(_SIGNED) == 1,
        modality=clean_text(values.get(_MODALITY, b""))[:16],
        photometric=clean_text(values.get(_PHOTOMETRIC, b""))[:16],
    )


def _frames(value: bytes) -> int:
    """Return Number of Frames; one when it is absent or empty, none when it is no number."""
    text = clean_text(value)
    if not text:
        return 1
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 8 else 0


def _judge(pixels: Pixels) -> Pixels:
    if pixels.bits_allocated not in (8, 16) or pixels.samples not in (1, 3):
        raise NotSuitableError(f"not an image here: {pixels.samples} samples of {pixels.bits_allocated} bits")
    if not (pixels.rows and pixels.columns and 0 < pixels.frames <= FRAMES_MAX):
        raise NotSuitableError("not an image: no rows, columns or frames")
    if pixels.frames * pixels.frame_bytes > pixels.length_bytes:
        raise NotSuitableError("not an image: less pixel data than its attributes say")
    return pixels
