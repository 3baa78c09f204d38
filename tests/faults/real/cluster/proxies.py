"""A proxy before each node that damages what passes: a bit flipped, bytes left out, bytes said twice, a link cut.

One connection in some has one fault, in either direction, after a drawn number of bytes. The proxies of a cluster are
one process; whether they do damage at all is in memory that it shares with the campaign. Refuses to do: packets (a TCP
checksum would notice); what is damaged here is what no checksum of the network notices.
"""

import mmap
import random
import struct
from collections.abc import Sequence
from typing import Final

import trio

from tests.faults.real.forks import Child, fork

KINDS: Final = ("flip", "leave out", "twice", "cut")
ONE_IN: Final = 3  # connections
BYTES_MAX: Final = 1 << 16
PIECE: Final = 1 << 14
COUNTS: Final = struct.Struct(f"{1 + len(KINDS)}q")  # whether there is damage, and how often each kind was done


class Proxies:
    """A proxy for each of `ports`, at a port of its own; `listeners`."""

    def __init__(self, ports: Sequence[int], listeners: Sequence[int], seed: int) -> None:
        self._memory = mmap.mmap(-1, COUNTS.size)
        self._seed = seed
        self._child: Child = fork(lambda _say: trio.run(self._serve, ports, listeners))

    def damage(self, *, on: bool) -> None:
        """Begin or end to do damage."""
        struct.pack_into("q", self._memory, 0, on)

    def counts(self) -> dict[str, int]:
        """Return how often each kind of damage was done."""
        return dict(zip(KINDS, COUNTS.unpack_from(self._memory)[1:], strict=True))

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.end()

    async def _serve(self, ports: Sequence[int], listeners: Sequence[int]) -> None:
        async with trio.open_nursery() as nursery:
            for number, (port, listener) in enumerate(zip(ports, listeners, strict=True)):
                chance = random.Random(f"{self._seed} {number}")

                async def handle(link: trio.SocketStream, port: int = port, chance: random.Random = chance) -> None:
                    await self._pass(link, port, chance.randrange(1 << 60))

                nursery.start_soon(lambda h=handle, p=listener: trio.serve_tcp(h, p, host="127.0.0.1"))

    async def _pass(self, link: trio.SocketStream, port: int, seed: int) -> None:
        chance = random.Random(seed)
        victim = chance.choice(("up", "down")) if chance.randrange(ONE_IN) == 0 else ""
        after = round(BYTES_MAX ** chance.random())
        kind = chance.randrange(len(KINDS))
        try:
            async with link, await trio.open_tcp_stream("127.0.0.1", port) as node, trio.open_nursery() as nursery:
                for name, source, target in (("up", link, node), ("down", node, link)):
                    left = after if name == victim else None
                    nursery.start_soon(self._pump, source, target, left, kind, chance, nursery.cancel_scope)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _pump(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        left: int | None,
        kind: int,
        chance: random.Random,
        both: trio.CancelScope,
    ) -> None:
        while data := await source.receive_some(PIECE):
            if left is not None and struct.unpack_from("q", self._memory, 0)[0]:
                if len(data) > left:
                    self._count(kind)
                    if KINDS[kind] == "cut":
                        both.cancel()
                        return
                    data, left = damaged(bytes(data), left, KINDS[kind], chance), None
                else:
                    left -= len(data)
            await target.send_all(data)
        both.cancel()

    def _count(self, kind: int) -> None:
        offset = 8 * (1 + kind)
        struct.pack_into("q", self._memory, offset, struct.unpack_from("q", self._memory, offset)[0] + 1)


def damaged(data: bytes, at: int, kind: str, chance: random.Random) -> bytes:
    """Return the bytes with one fault at a place."""
    length = chance.randrange(1, 64)
    match kind:
        case "flip":
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        case "leave out":
            return data[:at] + data[at + length :]
    return data[: at + length] + data[at : at + length] + data[at + length :]
