"""The objects of the histories, in each stored form, and ways in which they go wrong."""

import random

from tests.faults.histories.filesystem import File
from transfer.encodings import get_encoding
from transfer.objects import object_id

LENGTHS = (1, 500, 2048, 6000, 6144, 14_336, 20_000, 45_000, 50_001)


def _content(length: int) -> bytes:
    return random.Random(length).randbytes(length // 2) + bytes(length - length // 2)


OBJECTS = {object_id(_content(length)): _content(length) for length in LENGTHS}
ENCODINGS = ("raw", "zstd")
STORED = {
    (name, encoding): bytes(get_encoding(encoding).encode(data))
    for name, data in OBJECTS.items()
    for encoding in ENCODINGS
}


def changed(stored: bytes, rng: random.Random) -> bytes:
    """Return what a sender may get wrong: a bit, the end, a byte too many."""
    at = rng.randrange(len(stored))
    flipped = stored[:at] + bytes([stored[at] ^ 1 << rng.randrange(8)]) + stored[at + 1 :]
    return rng.choice((flipped, stored[:at], stored + b"x"))


def spoil(file: File, other: File, rng: random.Random) -> None:
    """Damage a file on the disk: a bit, a sector of zeros, a cut, or the content of another."""
    before, at = bytes(file.data), rng.randrange(len(file.data))
    kind = rng.choice(("bit", "zeros", "cut", "other"))
    if kind == "bit":
        file.data[at] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        file.data[at : at + 512] = bytes(len(file.data[at : at + 512]))
    elif kind == "cut":
        del file.data[at:]
    else:
        file.data[:] = other.data
    if bytes(file.data) == before:
        file.data[0] ^= 1
    file.pending.clear()
    file.durable = bytearray(file.data)
