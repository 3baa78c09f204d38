"""The encoding `zstd`: one Zstandard frame (RFC 8878) an object. Level 3, window at most 8 MiB."""

from collections.abc import Iterator
from typing import Final

from backports import zstd
from typing_extensions import Buffer

from transfer.dicom.pixels import Pixels
from transfer.encodings.interface import BLOCK_BYTES, Counted, Decoder, Encoder
from transfer.errors import CorruptError


class Zstd:
    """Zstandard (RFC 8878), one frame an object, window at most 8 MiB."""

    name = "zstd"
    level: Final = 3
    window_log_max: Final = 23

    def encode(self, data: Buffer) -> bytes:
        """Return one frame."""
        return zstd.compress(data, level=self.level)

    def encoder(self, _: Pixels | None = None, /) -> Encoder:
        """Return a streaming encoder."""
        return _ZstdEncoder(self.level)

    def decoder(self, size_bytes: int) -> Decoder:
        """Return a decoder of bounded memory."""
        return _ZstdDecoder(size_bytes, self.window_log_max)


class _ZstdEncoder:
    def __init__(self, level: int) -> None:
        self._stream = zstd.ZstdCompressor(level=level)

    def feed(self, block: Buffer) -> bytes:
        return self._stream.compress(block)

    def finish(self) -> bytes:
        return self._stream.flush()


class _ZstdDecoder(Counted):
    """Takes out blocks of at most 1 MiB, so a small input that swells is refused at the promised size, not after it."""

    def __init__(self, size_bytes: int, window_log_max: int) -> None:
        super().__init__(size_bytes)
        limits: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log_max}
        self._stream = zstd.ZstdDecompressor(options=limits)

    def feed(self, stored: Buffer) -> Iterator[Buffer]:
        rest = stored
        if not memoryview(rest).nbytes:
            return  # the last DATA frame of a streamed object is empty, and comes after the end of the zstd frame
        while True:
            block = self._decompress(rest)
            rest = b""
            if block:
                self.count(len(block))
                yield block
            if self._stream.eof or self._stream.needs_input:
                return

    def finish(self) -> None:
        super().finish()
        if not self._stream.eof or self._stream.unused_data:
            raise CorruptError("the stored bytes are not exactly one zstd frame")

    def _decompress(self, stored: Buffer) -> bytes:
        try:
            return self._stream.decompress(stored, BLOCK_BYTES)
        except (zstd.ZstdError, EOFError) as error:
            raise CorruptError(f"the stored bytes are not zstd: {error}") from error
