"""A node's store as a campaign works it: groups of one and of several, spilled, resumable and unnamed uploads.

The check: every promised object bit for bit under its id, every visible file whole and in its place, nothing half
received but resumable uploads, nothing quarantined.
"""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from nodes.incoming import Incoming
from nodes.objectfile import Record
from nodes.store import Store
from tests.faults.real.content import content
from tests.faults.real.forks import Say
from tests.faults.real.role import Role, promise
from tests.store.objects import fetch, noise, pieces, upload
from transfer import durable
from transfer.errors import FascicleError
from transfer.objects import object_id

How = Literal["new", "resumable", "unnamed"]
BATCH: Final[list[list[tuple[int, int, How]]]] = [  # groups of (seed, length, how)
    [(1, 5_000, "new")],
    [(2, 100, "new"), (3, 70_000, "new"), (4, 1_500_000, "new"), (1, 5_000, "new")],
    [(5, 200_000, "resumable"), (6, 3_000, "unnamed")],
]
PIECE_BYTES: Final = 1 << 18


def prepare(folder: Path) -> None:
    """Leave a temporary file and the first half of a resumable upload."""
    with Store.open(folder, 0) as store:
        seed, length, _ = BATCH[2][0]
        incoming = store.begin(object_id(noise(length, seed)), length, "raw", resumable=True)
        incoming.write(noise(length, seed)[:100_000])
        incoming.abandon()
    (folder / "incoming" / "7.new").write_bytes(b"left behind")


def batch(folder: Path, say: Say) -> None:
    """Store `BATCH`; what an error refused is tried once more, as a sender would."""
    durable.FEW = 1 << 30  # in one thread, so that the n-th call is the same each time
    with Store.open(folder, 0) as store:
        refused = [group for each in BATCH if (group := _put(store, each, say))]
        for group in refused:
            if _put(store, group, say):
                say({"refused": str(group)})


def _put(store: Store, group: Sequence[tuple[int, int, How]], say: Say) -> list[tuple[int, int, How]]:
    """Store one group; return what was refused."""
    refused, uploads = [], []
    for what in group:
        incoming = _receive(store, *what)
        if incoming is None:
            refused.append(what)
        else:
            uploads.append((what, incoming))
    outcomes = store.commit([incoming for _, incoming in uploads])
    for (what, _), outcome in zip(uploads, outcomes, strict=True):
        if isinstance(outcome, Record):
            promise(say, outcome.object_id, what[0])
        else:
            refused.append(what)
    return refused


def _receive(store: Store, seed: int, length: int, how: How) -> Incoming | None:
    data = noise(length, seed)
    incoming = None
    try:
        if how == "unnamed":
            incoming = store.begin_unnamed(length)
        else:
            incoming = store.begin(object_id(data), length, "raw", resumable=how == "resumable")
        for piece in pieces(data[incoming.offset_bytes :], PIECE_BYTES):
            incoming.write(piece)
    except FascicleError:
        if incoming is not None:
            with contextlib.suppress(FascicleError):  # on a disk that fails there is nothing to tidy
                incoming.abandon()
        return None
    return incoming


def for_ever(folder: Path, first_seed: int, say: Say) -> None:
    """Store group after group, of one to eight objects."""
    with Store.open(folder, 0) as store:
        say({"open": True})
        seeds = itertools.count(first_seed)
        for number in itertools.count(first_seed):
            chosen = list(itertools.islice(seeds, 1 + number * 7 % 8))
            uploads = [upload(store, content(seed), piece_bytes=PIECE_BYTES) for seed in chosen]
            for seed, outcome in zip(chosen, store.commit(uploads), strict=True):
                if isinstance(outcome, Record):
                    promise(say, outcome.object_id, seed)


def check(folder: Path, promised: Mapping[str, int]) -> list[str]:
    """Open the store again, which must work by itself, and judge."""
    with Store.open(folder, 0) as store:
        problems = [problem for key, seed in promised.items() if (problem := _judge(store, key, seed))]
        problems += [problem for path in _files(folder / "objects") if (problem := _judge_file(store, path))]
        left = [path.name for path in _files(folder / "incoming") if path.suffix != ".partial"]
        problems += [f"left in incoming: {name}" for name in left]
        problems += [f"quarantined: {path.name}" for path in _files(folder / "quarantine")]
    return problems


def _judge(store: Store, key: str, seed: int) -> str:
    lengths = {each: length for group in BATCH for each, length, _ in group}
    expected = noise(lengths[seed], seed) if seed in lengths else content(seed)
    try:
        return "" if fetch(store, key) == expected else f"LOST {key} of seed {seed}: other bytes"
    except FascicleError as error:
        return f"LOST {key} of seed {seed}: {error.code}: {error.message}"


def _judge_file(store: Store, path: Path) -> str:
    place = f"{path.parent.parent.name}/{path.parent.name}"
    if place != f"{path.name[:2]}/{path.name[2:4]}":
        return f"in a wrong place: {place}/{path.name}"
    try:
        store.check(path.name, deep=True)
    except FascicleError as error:
        return f"visible and not whole: {path.name}: {error.code}"
    return ""


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


STORE: Final = Role("store", prepare, batch, for_ever, check, warm=True)
