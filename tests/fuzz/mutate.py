"""Mutations of an input, all from one generator: what flips, cuts, repeats, splices and lies about lengths.

Not guided by coverage: the corpus has the shapes, this has the damage.
"""

import random
import struct
from collections.abc import Callable, Sequence

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
LENGTH_MAX = 200_000
ROUNDS_MAX = 6
NEST = b"\x91" * 1050 + b"\xc0"  # deeper than Python goes, and still within a heartbeat


def mutate(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return one of the corpus, damaged; now and then as it is, or nothing but noise."""
    kind = chance.random()
    if kind < 0.02:
        return chance.randbytes(chance.randrange(400))
    data = bytearray(chance.choice(corpus))
    if kind < 0.04:
        return bytes(data)
    for _ in range(chance.randint(1, ROUNDS_MAX)):
        chance.choice(_DAMAGES)(data, chance, corpus)
    return bytes(data[:LENGTH_MAX])


def _flip(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice(
            (0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x2E, 0x2F, chance.randrange(256))
        )


def _number(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """Put an interesting number where a length may be, in either order."""
    layout = chance.choice(("<H", ">H", "<L", ">L"))
    number = chance.choice(INTERESTING) & (0xFFFF if layout[1] == "H" else 0xFFFFFFFF)
    at = chance.randrange(len(data) + 1)
    data[at : at + struct.calcsize(layout)] = struct.pack(layout, number)


def _cut(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _remove(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.randint(1, 40)]


def _repeat(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    piece = data[at : at + chance.randint(1, 60)]
    data[at:at] = piece * chance.choice((1, 1, 2, 100))


def _insert(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.randint(1, 20))


def _splice(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> None:
    other = chance.choice(corpus)
    at, of = chance.randrange(len(data) + 1), chance.randrange(len(other) + 1)
    data[at:] = other[of:]


def _nest(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """Put arrays in one another somewhere, or behind the last element of an array that counts one more."""
    if data and 0x90 <= data[0] < 0x9F and chance.random() < 0.5:
        data[0] += 1
        data += NEST
    else:
        at = chance.randrange(len(data) + 1)
        data[at:at] = chance.choice((NEST, b"[" * 5000, b'{"a":' * 1050))


_DAMAGES: Sequence[Callable[[bytearray, random.Random, Sequence[bytes]], None]] = (
    _flip, _flip, _set, _set, _number, _number, _cut, _remove, _repeat, _insert, _splice,
    _nest,
)  # fmt: skip
