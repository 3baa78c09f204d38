"""Corruption: objects on the disk of an open store are changed behind its back, each in a way that the seed draws.

Every change must be found by whatever reads the object next, before its last byte is given out: the reader hears
`corrupt`, the file is in quarantine, and the object can be stored again. One that is stored again before anybody has
read it must be as sound as a first one: the acknowledgement says so. Refuses to do: repair from replicas (whole
clusters do that).
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from nodes.objectfile import HEADER_BYTES, Record
from nodes.opening import object_path
from nodes.store import Store
from tests.faults.real.journal import Acknowledged, Journal
from tests.faults.real.totals import Totals
from tests.store.objects import dicom, noise, put
from transfer.errors import CorruptError, FascicleError, NotStoredError
from transfer.objects import object_id

LENGTHS_BYTES: Final = [0, 1, 100, 2_047, 4_096, 5_000, 5_000, 70_000, 300_000, 1_100_000]
LARGE_BYTES: Final = 4_500_000  # is not read whole before its first block is given out
ENCODED: Final = 6
STORED_BEFORE_READ: Final = 0.2  # the share that is sent once more before anybody has read it
BLOCKS_BYTES: Final = (512, 4_096)


class Stored(NamedTuple):
    """One object: its id, its bytes, how it is stored, and the file as it must be."""

    object_id: str
    data: bytes
    encoding: str
    file: bytes


def flip(file: bytearray, chance: random.Random, _: bytes) -> None:
    """One bit, anywhere."""
    file[chance.randrange(len(file))] ^= 1 << chance.randrange(8)


def flip_header(file: bytearray, chance: random.Random, _: bytes) -> None:
    """One bit of the header."""
    file[chance.randrange(HEADER_BYTES)] ^= 1 << chance.randrange(8)


def flip_many(file: bytearray, chance: random.Random, other: bytes) -> None:
    """Up to a hundred bits."""
    for _ in range(chance.randrange(1, 100)):
        flip(file, chance, other)


def truncate(file: bytearray, chance: random.Random, _: bytes) -> None:
    """Cut, as far as to nothing."""
    del file[chance.choice((0, HEADER_BYTES, chance.randrange(len(file)))) :]


def extend(file: bytearray, chance: random.Random, _: bytes) -> None:
    """Bytes behind the end."""
    file += chance.randbytes(chance.choice((1, 512, 5_000)))


def zero(file: bytearray, chance: random.Random, _: bytes) -> None:
    """Every block from one on, or one block, is zero."""
    block = chance.choice(BLOCKS_BYTES)
    start = chance.randrange(len(file)) // block * block
    end = chance.choice((start + block, len(file)))
    file[start:end] = bytes(len(file[start:end]))


def zero_all(file: bytearray, _: random.Random, __: bytes) -> None:
    """As long as before, and all zero: what some file systems leave after a crash."""
    file[:] = bytes(len(file))


def move_block(file: bytearray, chance: random.Random, _: bytes) -> None:
    """A block that was written to another one's place."""
    block = chance.choice(BLOCKS_BYTES)
    blocks = -(-len(file) // block)
    one, two = chance.randrange(blocks) * block, chance.randrange(blocks) * block
    piece = file[one : one + block]
    file[two : two + len(piece)] = piece


def replace(file: bytearray, _: random.Random, other: bytes) -> None:
    """The file of another object, sound in itself."""
    file[:] = other


def replace_bytes(file: bytearray, _: random.Random, other: bytes) -> None:
    """Its own header, and the stored bytes of another."""
    file[HEADER_BYTES:] = other[HEADER_BYTES:]


def replace_header(file: bytearray, _: random.Random, other: bytes) -> None:
    """The header of another, and its own stored bytes."""
    file[:HEADER_BYTES] = other[:HEADER_BYTES]


Change = Callable[[bytearray, random.Random, bytes], None]
CHANGES: Final[list[Change]] = [
    flip,
    flip_header,
    flip_many,
    truncate,
    extend,
    zero,
    zero_all,
    move_block,
    replace,
    replace_bytes,
    replace_header,
]


class Corruption:
    """Corrupts the objects of an open store, one after the other."""

    def __init__(self, store: Store, journal: Journal, totals: Totals) -> None:
        self._store, self._journal, self._totals = store, journal, totals
        sources = [(noise(length, seed), "raw") for seed, length in enumerate([*LENGTHS_BYTES, LARGE_BYTES])]
        sources += [(dicom(f"1.2.{seed}", 20_000 * seed + 512), "zstd") for seed in range(ENCODED)]
        self._objects = [self._put(data, encoding) for data, encoding in sources]

    def corrupt(self, number: int) -> None:
        """Do change `number` of the seed, and judge how it was taken."""
        chance = random.Random(f"{self._totals.seed} {number}")
        victim, other = chance.sample(self._objects, 2)
        change = chance.choice(CHANGES)
        file = bytearray(victim.file)
        change(file, chance, other.file)
        if file == victim.file:  # it drew what is no change, such as zeroing what is zero
            file[-1] ^= 1
        self._path(victim).write_bytes(file)
        problems = [] if chance.random() < STORED_BEFORE_READ else self._judge(victim, chance)
        again = self._put(victim.data, victim.encoding)
        if again.file != victim.file:
            problems.append("stored again, its file is another one")
        served, error = self._read(again)
        if served != victim.file[HEADER_BYTES:]:
            problems.append(f"ACKNOWLEDGED AND NOT STORED: {error!r}")
            self._put(victim.data, victim.encoding)
        self._forget_quarantined()
        self._totals.runs += 1
        self._totals.fired += 1
        self._totals.note(f"corruption {number}, {change.__name__} of {len(victim.file)} bytes", problems)

    def finish(self) -> None:
        """Everything that was ever acknowledged must be there, and the counts be right."""
        problems = [each.object_id for each in self._objects if self._read(each)[0] != each.file[HEADER_BYTES:]]
        self._store.wait_counted(10)
        counted = self._store.statistics().objects
        if counted != len(self._objects):
            problems.append(f"counted {counted} objects of {len(self._objects)}")
        self._totals.note("the end", problems)

    def _put(self, data: bytes, encoding: str) -> Stored:
        outcome = put(self._store, data, encoding=encoding)
        assert isinstance(outcome, Record), outcome
        self._journal.note([Acknowledged("corruption", outcome.object_id, len(data))])
        self._totals.acknowledged += 1
        path = Path(object_path(self._store.folder, object_id(data)))
        return Stored(outcome.object_id, data, encoding, path.read_bytes())

    def _path(self, stored: Stored) -> Path:
        return Path(object_path(self._store.folder, stored.object_id))

    def _judge(self, victim: Stored, chance: random.Random) -> list[str]:
        if chance.random() < 0.3:  # what an offer asks first: it may be content with the header
            self._store.contains(victim.object_id)
        served, error = self._read(victim) if chance.random() < 0.7 else self._check(victim)
        problems = []
        if not isinstance(error, CorruptError | NotStoredError):
            problems.append(f"UNDETECTED: {error!r}")
        if served and len(served) >= len(victim.file) - HEADER_BYTES:
            problems.append(f"BAD BYTES SERVED: {len(served)}")
        if self._path(victim).exists():
            problems.append("still there under its name")
        if len(list(Path(self._store.folder, "quarantine").iterdir())) != 1:
            problems.append("not in quarantine")
        self._forget_quarantined()
        if self._store.contains(victim.object_id) is not None:
            problems.append("still said to be stored")
        return problems

    def _forget_quarantined(self) -> None:
        for path in Path(self._store.folder, "quarantine").iterdir():
            path.unlink()

    def _read(self, stored: Stored) -> tuple[bytes, FascicleError | None]:
        served = b""
        try:
            with self._store.read(stored.object_id) as reader:
                for block in reader:
                    served += block
        except FascicleError as error:
            return served, error
        return served, None

    def _check(self, stored: Stored) -> tuple[bytes, FascicleError | None]:
        try:
            self._store.check(stored.object_id, deep=True)
        except FascicleError as error:
            return b"", error
        return b"", None
