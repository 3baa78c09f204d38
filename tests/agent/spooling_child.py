"""A program for test_spool: receives objects for ever, and names on standard output each one that was finished.

An object is the BLAKE3 digest of its payload, then the payload, so that half an object is told from a whole one.
"""

import os
import random
import sys
from pathlib import Path

import trio
from blake3 import blake3

from agent.spool import Spool, open_spool


async def receive_for_ever(spool: Spool, seed: int) -> None:
    numbers = random.Random(seed)
    while True:
        payload = numbers.randbytes(numbers.choice([10, 5_000, 400_000, 900_000]))
        incoming = await spool.begin("child")
        await incoming.write(blake3(payload).digest())
        for at in range(0, len(payload), 16_384):
            await incoming.write(payload[at : at + 16_384])
        if numbers.random() < 0.1:
            await incoming.abandon()
        else:
            os.write(1, f"{(await incoming.finish()).name}\n".encode())


async def main(folder: Path, seed: int) -> None:
    async with open_spool(folder, reserve_bytes=0) as spool, trio.open_nursery() as nursery:
        for flow in range(4):
            nursery.start_soon(receive_for_ever, spool, seed * 10 + flow)


trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
