"""The agent's spool as a campaign works it: objects that arrive in pieces, one alone and several at once.

An object is the BLAKE3 digest of its payload, then the payload, so that half an object is told from a whole one. The
check: every promised object bit for bit under its name, everything that a scan finds whole, nothing half received.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio
from blake3 import blake3

from agent.spool import Spool, open_spool
from tests.faults.real.content import content
from tests.faults.real.forks import Say
from tests.faults.real.role import Role, promise
from tests.store.objects import pieces
from transfer import durable
from transfer.errors import FascicleError

PIECE_BYTES: Final = 100_000
FLOWS: Final = 4
BATCH: Final = (1, 2, 3)


def prepare(folder: Path) -> None:
    """Leave half an object."""
    (folder / "incoming").mkdir(parents=True)
    (folder / "incoming" / f"{7:020d}-{'a' * 12}").write_bytes(b"left behind")


def batch(folder: Path, say: Say) -> None:
    """Spool `BATCH` one after the other, then a second time several at once."""
    durable.FEW = 1 << 30  # in few threads, so that the n-th call is the same more often
    trio.run(_batch, folder, say)


async def _batch(folder: Path, say: Say) -> None:
    async with open_spool(folder, reserve_bytes=0) as spool:
        for seed in BATCH:
            if not await _receive(spool, seed, say) and not await _receive(spool, seed, say):
                say({"refused": str(seed)})
        async with trio.open_nursery() as nursery:
            for seed in BATCH:
                nursery.start_soon(_receive, spool, seed, say)


async def _receive(spool: Spool, seed: int, say: Say) -> bool:
    data = framed(seed)
    incoming = None
    try:
        incoming = await spool.begin("campaign")
        for piece in pieces(data, PIECE_BYTES):
            await incoming.write(piece)
        spooled = await incoming.finish()
    except FascicleError:
        return await _give_up(incoming)
    promise(say, spooled.name, seed)
    return True


async def _give_up(incoming: object) -> bool:
    try:
        if incoming is not None:
            await incoming.abandon()
    except FascicleError:
        pass
    return False


def framed(seed: int) -> bytes:
    """Return the object of a seed."""
    return blake3(content(seed)).digest() + content(seed)


def for_ever(folder: Path, first_seed: int, say: Say) -> None:
    """Spool on several flows."""
    trio.run(_for_ever, folder, first_seed, say)


async def _for_ever(folder: Path, first_seed: int, say: Say) -> None:
    async def flow(number: int) -> None:
        seed = first_seed + number
        while True:
            await _receive(spool, seed, say)
            seed += FLOWS

    async with open_spool(folder, reserve_bytes=0) as spool, trio.open_nursery() as nursery:
        say({"open": True})
        for number in range(FLOWS):
            nursery.start_soon(flow, number)


def check(folder: Path, promised: Mapping[str, int]) -> list[str]:
    """Open the spool again, and judge."""
    return trio.run(_check, folder, promised)


async def _check(folder: Path, promised: Mapping[str, int]) -> list[str]:
    async with open_spool(folder, reserve_bytes=0) as spool:
        found = {spooled.name: spooled.size_bytes for spooled in await spool.scan()}
        problems = [f"LOST {name} of seed {seed}" for name, seed in promised.items() if name not in found]
        for name, size_bytes in found.items():
            data = spool.path(name).read_bytes()
            if len(data) != size_bytes or blake3(data[32:]).digest() != data[:32]:
                problems.append(f"visible and not whole: {name}")
            elif name in promised and data != framed(promised[name]):
                problems.append(f"LOST {name} of seed {promised[name]}: other bytes")
        problems += [f"left in incoming: {path.name}" for path in spool.incoming.iterdir()]
    return problems


SPOOL: Final = Role("spool", prepare, batch, for_ever, check, warm=False)
