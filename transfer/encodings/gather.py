"""Bytes that come in pieces of any length, taken out in pieces of the length that is wanted."""

from typing import Final

from typing_extensions import Buffer

_NOTHING: Final = memoryview(b"")


class Gather:
    """Feed a block, take all that can be taken, and feed the next: what is left over is copied, at most one piece."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._fresh = _NOTHING

    def feed(self, block: Buffer) -> None:
        """Take a block, after what was fed before has been taken until None was returned."""
        self._fresh = memoryview(block).cast("B")

    def take(self, length: int) -> memoryview | None:
        """Return the next `length` bytes; None when they are not all there yet."""
        missing = length - len(self._held)
        fresh = self._fresh[:missing]
        self._fresh = self._fresh[fresh.nbytes :] if fresh.nbytes == missing else _NOTHING
        if fresh.nbytes == length:
            return fresh
        self._held += fresh
        if fresh.nbytes < missing:
            return None
        taken, self._held = memoryview(self._held), bytearray()
        return taken

    def rest(self) -> memoryview:
        """Return what is left."""
        taken, self._held = memoryview(self._held), bytearray()
        return taken
