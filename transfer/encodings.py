"""Encodings: the forms in which an object travels and rests; the original is always given back bit for bit.

An encoding is named in the object's header. Each gives `encode` for an object in memory, an `encoder` for one that is
read block by block, and a `decoder` whose output is bounded by the size that the header promises, so that no
stored bytes, however made, take more memory than they declare. Refuses to do: choosing (`transfer.choice`), I/O.
"""

from collections.abc import Iterator
from typing import Final, Protocol

from backports import zstd
from typing_extensions import Buffer

from transfer.errors import CorruptError, SettingsError

BLOCK_BYTES: Final = 1 << 20


class Encoder(Protocol):
    """Encodes one object block by block."""

    def feed(self, block: Buffer) -> bytes:
        """Return the stored bytes that are ready, perhaps none."""

    def finish(self) -> bytes:
        """Return the rest."""


class Decoder(Protocol):
    """Decodes one object block by block."""

    def feed(self, stored: Buffer) -> Iterator[Buffer]:
        """Yield blocks of the original, each at most 1 MiB more than fed.

        Raises:
            CorruptError: not this encoding, or more than the promised size.
        """

    def finish(self) -> None:
        """Check that the whole original was given.

        Raises:
            CorruptError: it ended early.
        """


class Encoding(Protocol):
    """One lossless form of an object."""

    name: str

    def encode(self, data: Buffer) -> Buffer:
        """Return the stored form of a whole object."""

    def encoder(self) -> Encoder:
        """Return an encoder for one object; its stored form may differ from `encode`'s, never its meaning."""

    def decoder(self, size_bytes: int) -> Decoder:
        """Return a decoder for one object of `size_bytes` (original)."""


class Raw:
    """The original itself."""

    name = "raw"

    def encode(self, data: Buffer) -> Buffer:
        """Return `data`."""
        return data

    def encoder(self) -> Encoder:
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


class _Counted:
    """Bounds what a decoder gives."""

    def __init__(self, size_bytes: int) -> None:
        self.remaining_bytes = size_bytes

    def count(self, block_bytes: int) -> None:
        self.remaining_bytes -= block_bytes
        if self.remaining_bytes < 0:
            raise CorruptError("the stored bytes decode to more than the object's size")

    def finish(self) -> None:
        if self.remaining_bytes:
            raise CorruptError("the stored bytes end before the object does")


class _RawDecoder(_Counted):
    def feed(self, stored: Buffer) -> Iterator[Buffer]:
        self.count(memoryview(stored).nbytes)
        yield stored


class Zstd:
    """Zstandard (RFC 8878), one frame an object, window at most 8 MiB."""

    name = "zstd"
    level: Final = 3
    window_log_max: Final = 23

    def encode(self, data: Buffer) -> bytes:
        """Return one frame."""
        return zstd.compress(data, level=self.level)

    def encoder(self) -> Encoder:
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


class _ZstdDecoder(_Counted):
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


ENCODINGS: Final[dict[str, Encoding]] = {encoding.name: encoding for encoding in (Raw(), Zstd())}


def get_encoding(name: str) -> Encoding:
    """Return the encoding called `name`.

    Raises:
        SettingsError: no such encoding.
    """
    try:
        return ENCODINGS[name]
    except KeyError:
        raise SettingsError(f"unknown encoding `{name}`; known: {', '.join(sorted(ENCODINGS))}") from None
