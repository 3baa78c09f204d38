"""The beginning of a JPEG XL codestream (ISO/IEC 18181-1, annex D and clause F.2), read before the library sees it.

A frame may be far larger than its image, and a codestream may have many; libjxl takes memory for what they declare. So
only this is let through: one image of the strip's size, of one or three integer channels without extra ones, in one
frame without crop, upsampling, patches or blending, and without an ICC profile. Refuses to do: anything behind that.
"""

from typing import Final

from transfer.encodings.codecs import Form
from transfer.errors import CorruptError

_SIGNATURE: Final = b"\xff\x0a"
_ENOUGH_BYTES: Final = 96
_GREY: Final = 1
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class _Bits:
    """Reads fields of the format, lowest bit first; bits beyond the end are zero."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._at = 0

    def take(self, count: int) -> int:
        value = self._bits >> self._at & (1 << count) - 1
        self._at += count
        return value

    def choice(self, *ways: tuple[int, int]) -> int:
        """Read a U32: each way is a base and the number of bits to add."""
        base, count = ways[self.take(2)]
        return base + self.take(count)

    def enum(self) -> int:
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))

    def require(self, count: int, value: int, what: str) -> None:
        if self.take(count) != value:
            raise CorruptError(f"a strip's JPEG XL codestream is not as ours are: {what}")

    def align(self) -> None:
        self._at = -(-self._at // 8) * 8


def check_header(codestream: memoryview, form: Form, bits: int) -> None:
    """Raise CorruptError unless `codestream` declares just the strip of `form`, of so many bits a sample."""
    if bytes(codestream[:2]) != _SIGNATURE:
        raise CorruptError("a strip is not a JPEG XL codestream")
    fields = _Bits(bytes(codestream[2:_ENOUGH_BYTES]))
    if _size(fields) != (form.rows, form.columns) or _metadata(fields) != (bits, form.components):
        raise CorruptError("a strip's JPEG XL codestream is of another image")
    fields.align()
    _frame(fields)


def _size(fields: _Bits) -> tuple[int, int]:
    """Read SizeHeader (D.2): rows and columns."""
    small = fields.take(1)
    rows = _side(fields, small)
    ratio = fields.take(3)
    if not ratio:
        return rows, _side(fields, small)
    over, under = _RATIOS[ratio - 1]
    return rows, rows * over // under


def _side(fields: _Bits, small: int) -> int:
    return 8 * (1 + fields.take(5)) if small else fields.choice((1, 9), (1, 13), (1, 18), (1, 30))


def _metadata(fields: _Bits) -> tuple[int, int]:
    """Read ImageMetadata (D.3): bits a sample and channels."""
    fields.require(2, 0, "defaults, or extra fields")
    fields.require(1, 0, "floating point")
    bits = fields.choice((8, 0), (10, 0), (12, 0), (1, 6))
    fields.take(1)  # whether 16 bits are enough for its sums
    fields.require(2, 0, "extra channels")
    fields.require(1, 0, "XYB")
    components = _colour(fields)
    fields.require(2, 0, "extensions")
    fields.require(1, 1, "transforms of its own")
    return bits, components


def _colour(fields: _Bits) -> int:
    """Read ColourEncoding (D.3.5): the number of channels."""
    if fields.take(1):
        return 3
    fields.require(1, 0, "an ICC profile")
    space = fields.enum()
    if space not in (0, _GREY) or fields.enum() == 2 or (space != _GREY and fields.enum() == 2):
        raise CorruptError("a strip's JPEG XL codestream has colours of its own")
    if fields.take(1):
        fields.take(24)  # gamma
    else:
        fields.enum()  # transfer function
    fields.enum()  # rendering intent
    return 1 if space == _GREY else 3


def _frame(fields: _Bits) -> None:
    """Read FrameHeader (F.2) as far as it tells of sizes and further frames."""
    fields.require(1, 0, "defaults")
    fields.require(2, 0, "not a regular frame")
    fields.require(1, 1, "not modular")
    flags = 0 if not (way := fields.take(2)) else (1 + fields.take(4) if way == 1 else 17 + fields.take(8))
    if flags & ~128 or way == 3:
        raise CorruptError("a strip's JPEG XL codestream has patches, splines, noise or other frames")
    fields.require(1, 0, "YCbCr")
    fields.require(2, 0, "upsampling")
    fields.take(2)  # the size of a group
    fields.require(2, 0, "several passes")
    fields.require(1, 0, "a crop")
    fields.require(2, 0, "blending")
    fields.require(1, 1, "further frames")
