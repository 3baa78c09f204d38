"""Samples for image codecs, which know neither signs nor single odd bits: a strip less its lowest sample.

Signed words are lowered as such, so that -1 is beside 0. What the least sample is, and how many bits the others need
above it, stands before the codec's bytes:

    0   2 bytes: the least sample, as an unsigned word
    2   1 byte: bits that the others need, at least 1, or 9 of 16
    3   the codec's own bytes
"""

import struct
from typing import Final

import numpy as np
from typing_extensions import Buffer

from transfer.encodings.codecs import Form
from transfer.encodings.strip import Strip
from transfer.errors import CorruptError

_FRONT: Final = struct.Struct("<HB")
BITS_MIN: Final = {1: 1, 2: 9}  # libjxl refuses words of 16 bits that say they need but 8


def lower(strip: Strip) -> tuple[bytes, Strip, int]:
    """Return the three bytes, the lowered strip and the bits that it needs."""
    least, lowered = _least(strip)
    bits = max(BITS_MIN[strip.itemsize], int(lowered.max()).bit_length())
    return _FRONT.pack(least, bits), lowered, bits


def _least(strip: Strip) -> tuple[int, Strip]:
    """Lower by the least word as signed or as unsigned, whichever leaves the smaller range."""
    low = int(strip.min())
    signed = strip.view(f"<i{strip.itemsize}")
    low_signed, high_signed = int(signed.min()), int(signed.max())
    if high_signed - low_signed < int(strip.max()) - low:
        low = low_signed & ((1 << 8 * strip.itemsize) - 1)
    return low, strip - strip.dtype.type(low)


def front(stored: Buffer, form: Form) -> tuple[int, int, memoryview]:
    """Return the least sample, the bits and the codec's bytes.

    Raises:
        CorruptError: they cannot be of such a strip.
    """
    view = memoryview(stored)
    if view.nbytes <= _FRONT.size:
        raise CorruptError("a strip without its codec's bytes")
    least, bits = _FRONT.unpack_from(view)
    if not 0 < bits <= 8 * form.sample_bytes or least >> 8 * form.sample_bytes:
        raise CorruptError("a strip of impossible samples")
    return least, bits, view[_FRONT.size :]


def raised(lowered: Strip, least: int) -> Strip:
    """Give each sample its `least` back, in place."""
    return np.add(lowered, lowered.dtype.type(least), out=lowered)
