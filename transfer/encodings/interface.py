"""What every encoding offers, and the bound that every decoder keeps. Refuses to do: any encoding of its own."""

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from typing_extensions import Buffer

from transfer.dicom.pixels import Pixels
from transfer.errors import CorruptError

BLOCK_BYTES: Final = 1 << 20


class Encoder(Protocol):
    """Encodes one object block by block."""

    def feed(self, block: Buffer) -> bytes:
        """Return the stored bytes that are ready, perhaps none.

        Raises:
            NotSuitableError: not an object for this encoding; only before anything has been returned.
        """

    def finish(self) -> bytes:
        """Return the rest.

        Raises:
            NotSuitableError: not an object for this encoding, or one that ended before its pixel data did.
        """


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


# Returns the decoder of an encoding for an object of so many bytes, and of this id, for messages.
OpenDecoder = Callable[[str, int, str], Decoder]


class Encoding(Protocol):
    """One lossless form of an object."""

    name: str

    def encode(self, data: Buffer) -> Buffer:
        """Return the stored form of a whole object.

        Raises:
            NotSuitableError: not an object for this encoding.
        """

    def encoder(self, pixels: Pixels | None = None, /) -> Encoder:
        """Return an encoder for one object; its stored form may differ from `encode`'s, never its meaning.

        `pixels`: where its pixel data lies, if that was found already.
        """

    def decoder(self, size_bytes: int) -> Decoder:
        """Return a decoder for one object of `size_bytes` (original)."""


class Counted:
    """Bounds what a decoder gives."""

    def __init__(self, size_bytes: int) -> None:
        self.remaining_bytes = size_bytes

    def count(self, block_bytes: int) -> None:
        """Note a block that is about to be given; raises CorruptError when it is more than promised."""
        self.remaining_bytes -= block_bytes
        if self.remaining_bytes < 0:
            raise CorruptError("the stored bytes decode to more than the object's size")

    def finish(self) -> None:
        """Raise CorruptError unless all that was promised was given."""
        if self.remaining_bytes:
            raise CorruptError("the stored bytes end before the object does")
