"""`jpegls`: JPEG-LS (ISO/IEC 14495-1), lossless, by CharLS.

    the lowered strip's three bytes (`transfer.encodings.lowered`), then the coded data of a JPEG-LS file's only scan

All else in such a file is the same for all strips of a form, so it is not stored but written anew: a peer's could
declare another image, or coding parameters that keep CharLS busy for minutes, as does an end without its marker.
Refuses to do: near-lossless.
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

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_FRAME: Final = struct.Struct(">HHBHHB")  # SOF55, C.2.2
# LSE with the thresholds that C.2.4.1.1 gives for 16 bits; decoders differ in what they take when it is absent.
_PRESET_16: Final = struct.pack(">HHBHHHHH", 0xFFF8, 13, 1, 65535, 18, 67, 276, 64)
_BY_SAMPLE: Final = 2


class JpegLs:
    """A better ratio than HTJ2K, at half its speed."""

    def encode(self, strip: Strip) -> bytes:
        """Return the scan."""
        head, lowered, _ = lower(strip)
        try:
            file = bytes(imagecodecs.jpegls_encode(lowered if strip.shape[2] > 1 else lowered[:, :, 0]))
        except (RuntimeError, ValueError) as error:
            raise NotSuitableError(f"JPEG-LS failed: {error}") from error
        _, header, scan = file.partition(_header(Form(strip.shape[0], strip.shape[1], strip.shape[2], strip.itemsize)))
        if not header or not scan.endswith(_EOI):
            raise NotSuitableError("JPEG-LS failed: a file with other segments than expected")
        return head + scan.removesuffix(_EOI)

    def decode(self, stored: Buffer, form: Form) -> Strip:
        """Return the strip."""
        least, _, scan = front(stored, form)
        out = np.zeros((form.rows, form.columns, form.components), f"<u{form.sample_bytes}")
        try:
            file = b"".join((_SOI, _header(form), scan, _EOI))
            imagecodecs.jpegls_decode(file, out=out if form.components > 1 else out[:, :, 0])
        except (RuntimeError, ValueError) as error:
            raise CorruptError(f"a strip is not JPEG-LS: {error}") from error
        return raised(out, least)


def _header(form: Form) -> bytes:
    """Return the segments from the frame header to the scan header (C.2.2 to C.2.4)."""
    count = form.components
    frame = _FRAME.pack(0xFFF7, 8 + 3 * count, 8 * form.sample_bytes, form.rows, form.columns, count)
    frame += b"".join(bytes((number, 0x11, 0)) for number in range(1, count + 1))
    scan = struct.pack(">HHB", 0xFFDA, 6 + 2 * count, count)
    scan += b"".join(bytes((number, 0)) for number in range(1, count + 1))
    scan += bytes((0, _BY_SAMPLE if count > 1 else 0, 0))
    return frame + (_PRESET_16 if form.sample_bytes == 2 else b"") + scan
