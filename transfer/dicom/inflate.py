"""Deflated data sets (PS3.5 A.5): the walk over what inflates from the bytes, in bounded pieces.

The raw deflate stream is inflated `_PIECE` bytes at a time and forgotten. What may come out of what went in is
bounded by `MAX_RATIO` beyond a free allowance, so that a bomb costs a fraction of a second. Refuses to do: zlib or
gzip wrapping, which the standard does not know.
"""

import zlib
from typing import Final

from transfer.dicom.walk import Walk
from transfer.errors import NotDicomError, TruncatedError

MAX_RATIO: Final = 100
FREE_BYTES: Final = 64 << 20  # a mask of zeros deflates a thousandfold: small data sets may
IDENTITY_BYTES: Final = 1 << 20  # an identity is found within so much, or not at all
_PIECE: Final = 65536
_INPUT: Final = 1 << 20


class InflatedWalk:
    """A `Walk` over the inflated form of the bytes that it is fed."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._taken = 0
        self._given = 0

    def feed(self, view: memoryview, start: int = 0, *, until_passed: bool = False) -> None:
        """Inflate and walk `view` from `start`.

        Raises:
            NotDicomError: not a deflate stream, a bomb, or what `Walk.feed` raises.
        """
        for offset in range(start, len(view), _INPUT):
            piece = bytes(view[offset : min(offset + _INPUT, len(view))])
            self._taken += len(piece)
            limit = IDENTITY_BYTES if until_passed else FREE_BYTES + MAX_RATIO * self._taken
            pending = True  # zlib may hold output back although it has taken all input
            while pending and not self._inflate.eof and not (until_passed and self.walk.passed):
                piece, pending = self._take(piece, limit)
            if self._inflate.eof and piece.count(0) != len(piece):
                raise NotDicomError("something follows the deflated data set that is not zeros")

    def finish(self) -> None:
        """Check that stream and data set are at their end; raises TruncatedError."""
        if not self._inflate.eof:
            raise TruncatedError("truncated: the deflated data set does not reach its end")
        self.walk.finish()

    def _take(self, piece: bytes, limit_bytes: int) -> tuple[bytes, bool]:
        try:
            out = self._inflate.decompress(piece, _PIECE)
        except zlib.error as error:
            raise NotDicomError("the data set is not a deflate stream") from error
        self._given += len(out)
        if self._given > limit_bytes:
            raise NotDicomError(f"the deflated data set gives more than {limit_bytes} bytes: refused")
        self.walk.feed(memoryview(out))
        rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        return rest, bool(rest) or len(out) == _PIECE
