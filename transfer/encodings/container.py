"""The stored form of an image encoding, version 1. All numbers are little endian.

    0   "FPIX"
    4   1 byte: version, 1
    5   1 byte: codec (`transfer.encodings.codecs.CODECS`)
    6   1 byte: bytes a sample, 1 or 2
    7   1 byte: samples that lie side by side in a pixel, 1 or 3
    8   4 bytes: columns, at most 65535
    12  4 bytes: rows of a plane, at most 65535
    16  4 bytes: rows of a strip; the last strip of a plane may have fewer
    20  4 bytes: planes, one after the other: the frames, or each frame's colours where these are planar
    24  8 bytes: where in the original the first plane begins
    32  segments, each: 1 byte method | 4 bytes length | so many bytes

The segments are the pieces of the original in order: what stands before the planes in pieces of 1 MiB, each plane in
strips of at most 2 MiB, and what follows in pieces of 1 MiB. A piece's length is thus never written, only derived, from
the numbers above and the object's promised size. Methods: 0 the piece itself; 1 one zstd frame; 2 the codec (strips
only). Methods 1 and 2 are shorter than their piece, so that what is stored is never longer than the original by more
than the header and 5 bytes a segment. Nothing here knows of frames: each strip is decoded by itself, in bounded memory.
Refuses to do: compressing anything.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from transfer.dicom.pixels import Pixels
from transfer.errors import CorruptError

MAGIC: Final = b"FPIX"
VERSION: Final = 1
RAW, ZSTD, CODEC = 0, 1, 2
PIECE_BYTES: Final = 1 << 20
STRIP_BYTES_MAX: Final = 2 << 20
SIDE_MAX: Final = 65535
_HEADER: Final = struct.Struct("<4sBBBBLLLLQ")
HEADER_BYTES: Final = _HEADER.size
SEGMENT: Final = struct.Struct("<BL")


class Piece(NamedTuple):
    """One piece of the original; `rows` is 0 where it is no strip."""

    length_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Where the planes are and how they are cut: the container's header."""

    codec: int
    sample_bytes: int
    components: int
    columns: int
    rows: int
    strip_rows: int
    planes: int
    offset_bytes: int

    @classmethod
    def of(cls, pixels: Pixels, codec: int) -> Self:
        """Return how `pixels` are cut."""
        components = 1 if pixels.planar else pixels.samples
        sample_bytes = pixels.bits_allocated // 8
        strips = -(-pixels.rows * pixels.columns * components * sample_bytes // STRIP_BYTES_MAX)
        return cls(
            codec=codec,
            sample_bytes=sample_bytes,
            components=components,
            columns=pixels.columns,
            rows=pixels.rows,
            strip_rows=max(1, pixels.rows // strips),
            planes=pixels.frames * (pixels.samples // components),
            offset_bytes=pixels.offset_bytes,
        )

    @property
    def row_bytes(self) -> int:
        """The length of one row."""
        return self.columns * self.components * self.sample_bytes

    @property
    def end_bytes(self) -> int:
        """Where in the original the last plane ends."""
        return self.offset_bytes + self.planes * self.rows * self.row_bytes

    def pieces(self, size_bytes: int | None = None) -> Iterator[Piece]:
        """Yield the pieces of an object of `size_bytes`; of unknown size, pieces behind the planes without end."""
        yield from _plain(self.offset_bytes)
        strips = [min(self.strip_rows, self.rows - row) for row in range(0, self.rows, self.strip_rows)]
        for _ in range(self.planes):
            for rows in strips:
                yield Piece(rows * self.row_bytes, rows)
        if size_bytes is not None:
            yield from _plain(size_bytes - self.end_bytes)
        while size_bytes is None:
            yield Piece(PIECE_BYTES, 0)

    def encode(self) -> bytes:
        """Return the header."""
        numbers = (self.codec, self.sample_bytes, self.components, self.columns, self.rows, self.strip_rows)
        return _HEADER.pack(MAGIC, VERSION, *numbers, self.planes, self.offset_bytes)


def _plain(length_bytes: int) -> Iterator[Piece]:
    for start in range(0, length_bytes, PIECE_BYTES):
        yield Piece(min(PIECE_BYTES, length_bytes - start), 0)


def decode_header(header: bytes | memoryview, codec: int, size_bytes: int) -> Shape:
    """Return the shape of an object of `size_bytes` in the stored form of `codec`.

    Raises:
        CorruptError: another format, or more pixels than the object has bytes, or strips beyond the limits.
    """
    magic, version, *numbers = _HEADER.unpack(header)
    if magic != MAGIC or version != VERSION:
        raise CorruptError("the stored bytes are not an image container of version 1")
    shape = Shape(*numbers)
    sound = (
        shape.codec == codec
        and shape.sample_bytes in (1, 2)
        and shape.components in (1, 3)
        and 0 < shape.columns <= SIDE_MAX
        and 0 < shape.strip_rows <= shape.rows <= SIDE_MAX
        and shape.strip_rows * shape.row_bytes <= STRIP_BYTES_MAX
        and shape.planes > 0
        and shape.end_bytes <= size_bytes
    )
    if not sound:
        raise CorruptError("the image container's header contradicts itself, its encoding or the object's size")
    return shape


def check_segment(method: int, length_bytes: int, piece: Piece) -> None:
    """Raise CorruptError when a segment cannot be that of `piece`; nothing has been kept of it yet."""
    if method == RAW:
        sound = length_bytes == piece.length_bytes
    else:
        sound = method in (ZSTD, CODEC if piece.rows else ZSTD) and length_bytes < piece.length_bytes
    if not sound:
        raise CorruptError("the image container has a segment that cannot be")
