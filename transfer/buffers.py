"""Page-aligned memory for large payloads, used again and again.

Room is left in front of each payload for what its owner puts before it, so that both reach the disk in one write, past
the page cache, without a copy. A piece of memory is free when nothing but this pool refers to it (CPython counts
references, and a view counts for its memory): nobody gives anything back, and what is in use cannot be given out.
Refuses to do: limiting how much is in use; that is the business of credit.
"""

import mmap
import sys
from collections.abc import Iterator


class Aligned(mmap.mmap):
    """One piece of memory; payloads in it begin behind `Buffers.front_bytes`."""


class Buffers:
    """A pool of pieces that each hold a payload of up to `payload_bytes_max`; for one thread."""

    def __init__(self, payload_bytes_max: int, front_bytes: int) -> None:
        self._front_bytes = front_bytes
        self._size_bytes = front_bytes + payload_bytes_max
        self._pieces: list[Aligned] = []
        self._unused_count = next(_reference_counts([Aligned(-1, mmap.PAGESIZE)]))

    def take(self, length: int) -> memoryview:
        """Return `length` writable bytes (at most the pool's payload), their contents undefined."""
        return memoryview(self._free())[self._front_bytes : self._front_bytes + length]

    def _free(self) -> Aligned:
        for index, count in enumerate(_reference_counts(self._pieces)):
            if count == self._unused_count:
                return self._pieces[index]
        piece = Aligned(-1, self._size_bytes)
        self._pieces.append(piece)
        return piece


def _reference_counts(pieces: list[Aligned]) -> Iterator[int]:
    """Yield how often each piece is referred to: by the list, by this function, and by who uses it.

    How many are this function's own is measured and not written down: from CPython 3.14 on an argument is not counted,
    and a piece in use by one would pass for free.
    """
    for piece in pieces:
        yield sys.getrefcount(piece)


def with_front(payload: memoryview, front: bytes) -> memoryview | None:
    """Put `front` right before a whole payload of a pool; None when the payload is of other memory.

    `front` must be as long as the pool's `front_bytes`.
    """
    piece = payload.obj
    if not isinstance(piece, Aligned):
        return None
    piece[: len(front)] = front
    return memoryview(piece)[: len(front) + payload.nbytes]
