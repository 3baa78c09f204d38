"""Image encodings: uncompressed pixel data by a codec, strip by strip; all else by zstd. The form: `container`.

Both directions hold one strip (2 MiB) and its coded form at a time, whatever the object's size. Until the pixel data
has been found nothing is given out, so that an object that is no image costs nothing but the look. Refuses to do:
proving that what was encoded decodes (`proof`; the node does it for every object that it takes).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from typing_extensions import Buffer

from transfer.dicom.pixels import Pixels, locate_pixels
from transfer.encodings import pieces
from transfer.encodings.codecs import CODECS, Codec, Form, load_codec
from transfer.encodings.container import (
    CODEC,
    HEADER_BYTES,
    RAW,
    SEGMENT,
    ZSTD,
    Piece,
    Shape,
    check_segment,
    decode_header,
)
from transfer.encodings.gather import Gather
from transfer.encodings.interface import BLOCK_BYTES, Counted, Decoder, Encoder
from transfer.errors import CorruptError, NotSuitableError, TruncatedError

if TYPE_CHECKING:
    from transfer.encodings.strip import Strip

HEAD_BYTES_MAX: Final = 4 << 20
DecodeStrip = Callable[[str, memoryview, Form], memoryview]  # of an encoding; errors as `Codec.decode`


def decode_strip_here(encoding: str, stored: memoryview, form: Form) -> memoryview:
    """Decode a strip in this process; what a peer made belongs in another (`transfer.decoders`)."""
    return load_codec(encoding).decode(stored, form).data.cast("B")


class ImageEncoding:
    """One codec for the pixel data."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, data: Buffer) -> bytes:
        """Return the stored form of a whole object.

        Raises:
            NotSuitableError: no uncompressed image, or one that the codec fails on.
        """
        encoder = self.encoder()
        with memoryview(data) as raw, raw.cast("B") as view:
            return encoder.feed(view) + encoder.finish()

    def encoder(self, pixels: Pixels | None = None, /) -> Encoder:
        """Return a streaming encoder; its stored form is that of `encode`."""
        return ImageEncoder(self.name, pixels)

    def decoder(self, size_bytes: int) -> Decoder:
        """Return a decoder of bounded memory."""
        return ImageDecoder(self.name, size_bytes)


class ImageEncoder:
    """See `ImageEncoding.encoder`."""

    def __init__(self, name: str, pixels: Pixels | None = None) -> None:
        self._name, self._pixels = name, pixels
        self._head = bytearray()
        self._strips: _Strips | None = None

    def feed(self, block: Buffer) -> bytes:
        """Return the segments that are ready; see `Encoder.feed`."""
        if self._strips is not None:
            return self._strips.feed(block)
        if not self._head:
            return self._begin(block)
        self._head += memoryview(block).cast("B")
        return self._begin(self._head)

    def finish(self) -> bytes:
        """Return the rest; see `Encoder.finish`."""
        if self._strips is None:
            raise NotSuitableError("not an image: no pixel data")
        return self._strips.finish()

    def _begin(self, head: Buffer) -> bytes:
        """Look for the pixel data in what has come so far, and begin if it is there."""
        try:
            pixels = self._pixels or locate_pixels(head)
        except TruncatedError:
            if memoryview(head).nbytes > HEAD_BYTES_MAX:
                raise NotSuitableError("not an image: no pixel data within its first bytes") from None
            if head is not self._head:
                self._head += memoryview(head).cast("B")
            return b""
        shape = Shape.of(pixels, CODECS[self._name].number)
        self._strips = _Strips(shape, load_codec(self._name))
        out = shape.encode() + self._strips.feed(head)
        self._head = bytearray()
        return out


class _Strips:
    """Encodes piece after piece of a shape."""

    def __init__(self, shape: Shape, codec: Codec) -> None:
        self._shape, self._codec = shape, codec
        self._pieces = shape.pieces()
        self._piece = next(self._pieces)
        self._gather = Gather()
        self._strips = 0

    def feed(self, block: Buffer) -> bytes:
        self._gather.feed(block)
        out: list[Buffer] = []
        while (data := self._gather.take(self._piece.length_bytes)) is not None:
            out += self._segment(data, self._piece.rows)
            self._piece = next(self._pieces)
        return b"".join(out)

    def finish(self) -> bytes:
        rest = self._gather.rest()
        if self._piece.rows or self._strips < self._expected():
            raise NotSuitableError("the object ended before its pixel data did")
        return b"".join(self._segment(rest, 0)) if rest.nbytes else b""

    def _expected(self) -> int:
        return self._shape.planes * -(-self._shape.rows // self._shape.strip_rows)

    def _segment(self, data: memoryview, rows: int) -> tuple[bytes, Buffer]:
        method, stored = self._encode(data, rows) if rows else (ZSTD, pieces.compress(data))
        if len(stored) >= data.nbytes and method == CODEC:
            method, stored = ZSTD, pieces.compress(data)
        if len(stored) >= data.nbytes:
            return SEGMENT.pack(RAW, data.nbytes), data
        return SEGMENT.pack(method, len(stored)), stored

    def _encode(self, data: memoryview, rows: int) -> tuple[int, bytes]:
        self._strips += 1
        form = form_of(self._shape, rows)
        try:
            return CODEC, self._codec.encode(_strip(data, form))
        except (NotSuitableError, RuntimeError, ValueError, MemoryError) as error:  # libraries raise RuntimeErrors
            if self._strips == 1:
                raise NotSuitableError(f"the encoder failed: {error}") from error
            return ZSTD, pieces.compress(data)  # what was given out already cannot be taken back


def form_of(shape: Shape, rows: int) -> Form:
    """Return the form of a strip of so many rows."""
    return Form(rows, shape.columns, shape.components, shape.sample_bytes)


def _strip(data: memoryview, form: Form) -> "Strip":
    import numpy as np  # noqa: PLC0415  # only processes that encode images pay for it

    return np.frombuffer(data, f"<u{form.sample_bytes}").reshape(form.rows, form.columns, form.components)


class ImageDecoder(Counted):
    """See `ImageEncoding.decoder`; `decode_strip` says by whom strips are decoded."""

    def __init__(self, name: str, size_bytes: int, decode_strip: DecodeStrip = decode_strip_here) -> None:
        super().__init__(size_bytes)
        self._decode_strip = decode_strip
        self._name, self._size_bytes = name, size_bytes
        self._gather = Gather()
        self._shape: Shape | None = None
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        self._segment: tuple[int, int] | None = None  # method and length, once they are known

    def feed(self, stored: Buffer) -> Iterator[Buffer]:
        """Yield the pieces whose segments are whole; see `Decoder.feed`."""
        self._gather.feed(stored)
        if self._shape is None and not self._begin():
            return
        while self._piece is not None and self._next_segment(self._piece):
            method, length = self._segment or (RAW, 0)
            if (segment := self._gather.take(length)) is None:
                return
            piece = self._decode(method, segment, self._piece)
            self._segment, self._piece = None, next(self._pieces, None)
            self.count(piece.nbytes)
            for start in range(0, piece.nbytes, BLOCK_BYTES):
                yield piece[start : start + BLOCK_BYTES]
        if self._piece is None and self._gather.take(1) is not None:
            raise CorruptError("bytes follow the image container")

    def _begin(self) -> bool:
        header = self._gather.take(HEADER_BYTES)
        if header is None:
            return False
        self._shape = decode_header(header, CODECS[self._name].number, self._size_bytes)
        self._pieces = self._shape.pieces(self._size_bytes)
        self._piece = next(self._pieces, None)
        return True

    def _next_segment(self, piece: Piece) -> bool:
        """Read method and length of the next segment, unless they are known; tell whether they are."""
        if self._segment is None and (head := self._gather.take(SEGMENT.size)) is not None:
            method, length = SEGMENT.unpack(head)
            check_segment(method, length, piece)
            self._segment = method, length
        return self._segment is not None

    def _decode(self, method: int, segment: memoryview, piece: Piece) -> memoryview:
        if method == RAW:
            return segment
        if method == ZSTD or self._shape is None:
            return memoryview(pieces.decompress(segment, piece.length_bytes))
        return self._decode_strip(self._name, segment, form_of(self._shape, piece.rows))
