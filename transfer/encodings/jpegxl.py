"""`jxl-1`, `jxl-3`, `jxl-7`: JPEG XL (ISO/IEC 18181), lossless, by libjxl with so much effort.

    the lowered strip's three bytes (`transfer.encodings.lowered`), then a bare codestream

libjxl wraps codestreams of more than 12 bits in a file; the file's boxes are taken off, since they say nothing more.
Effort 1 of libjxl 0.11 has 22 bits of room for a sample of more than 14, and writes behind it where such samples are
noise, which ends the process. Of 8-bit colours it gives some back wrong: two of one hash among eight neighbours become
one entry of its palette, and with AVX-512 it loses bits where four neighbours take 16 bits each, as noise does. Such a
strip gets effort 2. Refuses to do: codestreams other than `transfer.encodings.jxlheader` lets through, also its own
(patches at effort 7).
"""

import struct
from typing import Final

import imagecodecs
import numpy as np
from typing_extensions import Buffer

from transfer.encodings.codecs import Form
from transfer.encodings.jxlheader import check_header
from transfer.encodings.lowered import front, lower, raised
from transfer.encodings.strip import Strip
from transfer.errors import CorruptError, NotSuitableError

_BOX: Final = struct.Struct(">L4s")
_BARE: Final = b"\xff\x0a"
_FAST_BITS_MAX: Final = 14
_WRONG_COLOUR_BITS: Final = 8
_EFFORT_BEYOND: Final = 2


class JpegXl:
    """The densest rungs; effort 1 is also among the fastest."""

    def __init__(self, effort: int) -> None:
        self._effort = effort

    def encode(self, strip: Strip) -> bytes:
        """Return the codestream."""
        head, lowered, bits = lower(strip)
        samples = lowered if strip.shape[2] > 1 else lowered[:, :, 0]
        effort = self._effort if _is_fast_sound(bits, strip.shape[2]) else max(self._effort, _EFFORT_BEYOND)
        try:
            file = imagecodecs.jpegxl_encode(
                samples, effort=effort, lossless=True, bitspersample=bits, usecontainer=False, numthreads=1
            )
            codestream = _bare(memoryview(file))
            check_header(codestream, Form(strip.shape[0], strip.shape[1], strip.shape[2], strip.itemsize), bits)
        except (RuntimeError, ValueError, CorruptError) as error:
            raise NotSuitableError(f"JPEG XL failed: {error}") from error
        return head + bytes(codestream)

    def decode(self, stored: Buffer, form: Form) -> Strip:
        """Return the strip."""
        least, bits, codestream = front(stored, form)
        check_header(codestream, form, bits)
        out = np.zeros((form.rows, form.columns, form.components), f"<u{form.sample_bytes}")
        try:
            imagecodecs.jpegxl_decode(codestream, numthreads=1, out=out if form.components > 1 else out[:, :, 0])
        except (RuntimeError, ValueError) as error:
            raise CorruptError(f"a strip is not JPEG XL: {error}") from error
        return raised(out, least)


def _is_fast_sound(bits: int, components: int) -> bool:
    """Tell whether effort 1 gives such samples back; libjxl 0.11.2 was asked (`tests/encodings/test_image.py`)."""
    return bits <= _FAST_BITS_MAX and not (components > 1 and bits == _WRONG_COLOUR_BITS)


def _bare(file: memoryview) -> memoryview:
    """Return the codestream of a file in boxes; a bare one is itself."""
    if bytes(file[:2]) == _BARE:
        return file
    offset = 0
    while offset + _BOX.size <= file.nbytes:
        length, kind = _BOX.unpack_from(file, offset)
        if kind == b"jxlc":
            return file[offset + _BOX.size : offset + length if length else file.nbytes]
        if length < _BOX.size:
            break
        offset += length
    raise NotSuitableError("JPEG XL failed: a file of unknown boxes")
