"""One zstd frame for a piece whose length is known: what is decoded is never longer, whatever the bytes say."""

from typing import Final

from backports import zstd
from typing_extensions import Buffer

from transfer.errors import CorruptError

LEVEL: Final = 1  # the rest of an image is small: the level does not show in the ratio
_LIMITS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}


def compress(piece: Buffer) -> bytes:
    """Return one frame."""
    return zstd.compress(piece, level=LEVEL)


def decompress(stored: Buffer, length: int) -> bytes:
    """Return the `length` bytes that the frame holds.

    Raises:
        CorruptError: it is no frame, or holds more or less.
    """
    stream = zstd.ZstdDecompressor(options=_LIMITS)
    try:
        piece = stream.decompress(stored, length + 1)
    except zstd.ZstdError as error:
        raise CorruptError(f"a piece is not zstd: {error}") from error
    if len(piece) != length or not stream.eof or stream.unused_data:
        raise CorruptError("a piece is not exactly one zstd frame of its length")
    return piece
