"""`jpegls`: JPEG-LS (ISO/IEC 14495-1), lossless, by CharLS.

    the lowered strip's three bytes (`transfer.encodings.lowered`), then a JPEG-LS file

Refuses to do: files whose frame header (SOF55) is not that of the strip, or is not reached by stepping over segments.
"""

import struct
from typing import Final

import imagecodecs
import numpy as np
from typing_extensions import Buffer

from transfer.encodings.codecs import Form
from transfer.encodings.lowered import front, lower, raised
from transfer.encodings.strip import Strip
from transfer.errors import CorruptError, NotSuitableError

_SOI, _SOF55 = 0xFFD8, 0xFFF7
_SKIPPED: Final = range(0xFFE0, 0xFFF0)  # application data: CharLS writes a SPIFF header in some
_MARKER: Final = struct.Struct(">HH")
_FRAME: Final = struct.Struct(">BHHB")


class JpegLs:
    """A better ratio than HTJ2K, at half its speed."""

    def encode(self, strip: Strip) -> bytes:
        """Return the file."""
        head, lowered, _ = lower(strip)
        try:
            return head + bytes(imagecodecs.jpegls_encode(lowered if strip.shape[2] > 1 else lowered[:, :, 0]))
        except (RuntimeError, ValueError) as error:
            raise NotSuitableError(f"JPEG-LS failed: {error}") from error

    def decode(self, stored: Buffer, form: Form) -> Strip:
        """Return the strip."""
        least, _, file = front(stored, form)
        _check(file, form)
        out = np.empty((form.rows, form.columns, form.components), f"<u{form.sample_bytes}")
        try:
            imagecodecs.jpegls_decode(file, out=out if form.components > 1 else out[:, :, 0])
        except (RuntimeError, ValueError) as error:
            raise CorruptError(f"a strip is not JPEG-LS: {error}") from error
        return raised(out, least)


def _check(file: memoryview, form: Form) -> None:
    try:
        offset = 2
        marker, length = _MARKER.unpack_from(file, offset)
        while marker in _SKIPPED:
            offset += 2 + length
            marker, length = _MARKER.unpack_from(file, offset)
        depth, rows, columns, components = _FRAME.unpack_from(file, offset + 4)
    except struct.error as error:
        raise CorruptError("a strip's JPEG-LS file is cut") from error
    declared = (marker, Form(rows, columns, components, -(-depth // 8)))
    if declared != (_SOF55, form):
        raise CorruptError("a strip's JPEG-LS file is of another image")
