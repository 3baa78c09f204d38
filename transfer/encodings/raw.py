"""The encoding `raw`: the original itself."""

from collections.abc import Iterator

from typing_extensions import Buffer

from transfer.dicom.pixels import Pixels
from transfer.encodings.interface import Counted, Decoder, Encoder


class Raw:
    """The original itself."""

    name = "raw"

    def encode(self, data: Buffer) -> Buffer:
        """Return `data`."""
        return data

    def encoder(self, _: Pixels | None = None, /) -> Encoder:
        """Return an encoder that gives what it is fed."""
        return _RawEncoder()

    def decoder(self, size_bytes: int) -> Decoder:
        """Return a decoder that counts."""
        return _RawDecoder(size_bytes)


class _RawEncoder:
    def feed(self, block: Buffer) -> bytes:
        return bytes(block)

    def finish(self) -> bytes:
        return b""


class _RawDecoder(Counted):
    def feed(self, stored: Buffer) -> Iterator[Buffer]:
        self.count(memoryview(stored).nbytes)
        yield stored
