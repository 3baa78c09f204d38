"""The gateway's audit trail as a campaign works it: entries alone and several at once, refusals that nobody waits for.

What `note` returned from is the promise, and so is where the trail ends then, as for an anchor that is kept elsewhere.
The check: the gateway opens it, cuts off what is in pieces at its end and tells of it, and changes nothing else; then
all of it verifies, through every promised anchor, and has every promised entry. Refuses to do: what a gateway notes.
"""

import asyncio
import itertools
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import audit, trail
from gateway.audit import Audit
from gateway.service import locked
from tests.faults.real.forks import Say
from tests.faults.real.role import Role, promise
from transfer.errors import FascicleError

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BATCH: Final = ((1, 2, 3, 10), (18, 4, 5, 26, 34))  # of one gateway, and of the next
NODES: Final = (0, 3, 1500, 0, 5, 1, 40, 0)  # that an entry lists; long ones take many pages, and fill a small disk
LONG: Final = 2
CALLERS: Final = 6
TORN_BYTES: Final = 5000  # more than is written over it at once
NEVER_S, OFTEN_S = 1e6, 0.01


class OneThread:
    """Threads that are one, of the executor, so that strace counts their calls together."""

    def __init__(self, executor: ThreadPoolExecutor, *, target: Any, **_: object) -> None:
        self._executor, self._target = executor, target

    def start(self) -> None:
        """Begin when what was started before has ended."""
        self._done: Future[None] = self._executor.submit(self._target)

    def join(self) -> None:
        """Wait for the end."""
        self._done.result()


def prepare(folder: Path) -> None:
    """Leave a trail of two entries, and the half of a line."""
    with locked(folder), closing(Audit(folder, KEY)) as log:
        asyncio.run(_note_all(log, (-1, -2), lambda _: None))
    _leave_half(folder, TORN_BYTES)


def _leave_half(folder: Path, size_bytes: int) -> None:
    """Leave the beginning of a line, as a kill in the middle of a write does, which no signal of ours can hit."""
    with audit.log_path(folder).open("ab") as file:
        file.write(trail.append(trail.START, fields(LONG), KEY)[1][:size_bytes])


def batch(folder: Path, say: Say) -> None:
    """Note `BATCH`; what was refused is tried once more, by a gateway that is started anew where the trail ended."""
    with ThreadPoolExecutor(1) as executor:
        threads = SimpleNamespace(Thread=partial(OneThread, executor))
        with patch.object(audit, "threading", threads), patch.object(audit, "ANCHOR_S", NEVER_S):
            for seeds in BATCH:
                left = _live(folder, seeds, say)
                if left and (left := _live(folder, left, say)):
                    say({"refused": str(left)})


def _live(folder: Path, seeds: Sequence[int], say: Say) -> Sequence[int]:
    """Note as one gateway; return what was refused."""
    try:
        with locked(folder), closing(Audit(folder, KEY)) as log:
            refused = asyncio.run(_note_all(log, seeds, say))
            log.refused("list_objects", "campaign", "workstation", "unauthorised")
            if refused and not log.failure.done():
                refused = asyncio.run(_note_all(log, refused, say))
    except FascicleError:
        return seeds
    return refused


async def _note_all(log: Audit, seeds: Sequence[int], say: Say) -> list[int]:
    """Note the first alone, then the others at once; return those that were refused."""
    notes = [await _note(log, seed, say) for seed in seeds[:1]]
    notes += await asyncio.gather(*(_note(log, seed, say) for seed in seeds[1:]))
    return [seed for seed, is_noted in zip(seeds, notes, strict=True) if not is_noted]


async def _note(log: Audit, seed: int, say: Say) -> bool:
    try:
        await log.note("transfer_committed", "campaign", **fields(seed))
    except FascicleError:
        return False
    promise(say, f"{seed} {log.head}", seed)
    return True


def fields(seed: int) -> dict[str, Any]:
    """Return what the entry of a seed says."""
    nodes = [f"{seed:020d}-{number:040d}" for number in range(NODES[seed % len(NODES)])]
    return {"transfer_id": f"transfer-{seed}", "objects": seed, "nodes": nodes}


def for_ever(folder: Path, first_seed: int, say: Say) -> None:
    """Note for several callers at once; every second gateway finds half a line."""
    audit.ANCHOR_S = OFTEN_S  # a life takes a fraction of a second
    chance = random.Random(first_seed)
    if chance.randrange(2):
        with suppress(OSError):  # the power may have gone already
            _leave_half(folder, chance.randrange(1, TORN_BYTES))
    with locked(folder), closing(Audit(folder, KEY)) as log:
        say({"open": True})
        asyncio.run(_for_ever(log, first_seed, say))


async def _for_ever(log: Audit, first_seed: int, say: Say) -> None:
    async def call(number: int) -> None:
        for seed in itertools.count(first_seed + number, CALLERS):
            if not await _note(log, seed, say) and log.failure.done():
                raise log.failure.result()

    await asyncio.gather(*(call(number) for number in range(CALLERS)))


def check(folder: Path, promised: Mapping[str, int]) -> list[str]:
    """Open the trail again, and judge."""
    with locked(folder):
        before = _bytes(folder)
        Audit(folder, KEY).close()
        problems = _judge_mending(before, _bytes(folder))
        anchors = [trail.read_anchor(key.split()[1]) for key in promised]
        try:
            audit.verify(folder, KEY.public_key(), anchors)
        except FascicleError as error:
            problems.append(f"LOST: {error.message}")
    entries = {entry.get("objects"): entry for entry in map(_entry, _bytes(folder).splitlines())}
    for seed in promised.values():
        said = entries.get(seed, {})
        if any(said.get(name) != value for name, value in fields(seed).items()):
            problems.append(f"LOST entry {seed}: {said}"[:200])
    return problems


def _judge_mending(before: bytes, after: bytes) -> list[str]:
    """Return what a start did to the trail but cut off what is in pieces at its end, and tell."""
    if after == before:
        return []
    sound, mended = after[: after.rfind(b"\n", 0, -1) + 1], _entry(after.splitlines()[-1])
    cut = before[len(sound) :]
    if not before.startswith(sound) or (mended["event"], mended.get("cut_bytes")) != ("trail_mended", len(cut)):
        return [f"of {len(before)} bytes {len(sound)} were left, and the trail tells {mended}"[:300]]
    return ["a whole line was cut off"] if _is_sound(cut) else []


def _is_sound(lines: bytes) -> bool:
    try:
        trail.last(lines[: lines.find(b"\n") + 1], KEY.public_key())
    except FascicleError:
        return False
    return True


def _entry(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(trail.body_of(line))
    return found


def _bytes(folder: Path) -> bytes:
    path = audit.log_path(folder)
    return path.read_bytes() if path.exists() else b""


AUDIT: Final = Role("audit", prepare, batch, for_ever, check, warm=True)
