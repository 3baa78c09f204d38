"""The honest ones, whose work must go on: whole transfers by the sender's own code, and instances by C-STORE.

Each transfer connects anew, as a `send` does, and is over when its commit is answered. Refuses to do: judging.
"""

import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from tests.dicom.build import CT, EXPLICIT, IMAGE, element, uid
from tests.dimse.peer import RELEASE, associate_request, data_pdu, pdv, receive_pdu, status_of, store_request
from tests.load.parts import Parts
from transfer import credentials
from transfer.client import GatewayClient
from transfer.errors import FascicleError
from transfer.inspection import SourceFile
from transfer.objects import object_id
from transfer.outcomes import SendOptions
from transfer.sender import send_files

PATIENCE_S: Final = 60.0
REJECTED: Final = 3
SETTLE_S: Final = 15.0  # a crowd begins all at once: until its first ones have ended, less ends in a second than goes
UNIQUE_BYTES: Final = 32
MEMORY: Final = Path("/dev/shm")


@dataclass
class Done:
    """What was done: bytes acknowledged, names of objects, how long each piece of work took, what failed.

    `settled` is the share of `offer_for`'s window: bytes, and seconds.
    """

    bytes: int = 0
    names: set[str] = field(default_factory=set)
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    settled: tuple[int, float] = (0, 0.0)

    @property
    def settled_bytes_s(self) -> float:
        """Bytes acknowledged in a second of the window."""
        return self.settled[0] / self.settled[1] if self.settled[1] else 0.0

    @property
    def bytes_s(self) -> float:
        """Bytes acknowledged in a second."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def add(self, other: "Done") -> None:
        """Take in another's work; the time is that of both after each other."""
        self.bytes += other.bytes
        self.names |= other.names
        self.took_s += other.took_s
        self.failures += other.failures
        self.seconds += other.seconds
        self.settled = (self.settled[0] + other.settled[0], self.settled[1] + other.settled[1])


Work = Callable[[Done, random.Random], Awaitable[None]]


class Sender:
    """Sends `objects` new objects of `size_bytes` as one transfer."""

    def __init__(self, parts: Parts, *, objects: int, size_bytes: int, flows: int) -> None:
        self._credentials = credentials.load(parts.credentials)
        self._context = parts.context
        self._objects = objects
        # What is alike in all: to draw every byte anew would cost more than to send it.
        self._rest = random.Random(0).randbytes(size_bytes - UNIQUE_BYTES)
        self._options = SendOptions(any_file=True, encoding="raw", flows=flows, congestion=None)

    async def __call__(self, done: Done, chance: random.Random) -> None:
        """Do it once."""
        began = time.monotonic()
        # Senders are other machines: what they send is not on the disk of the node, whose flush would write it, too.
        memory = MEMORY if MEMORY.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="fascicle-load-", dir=memory) as folder:
            made = [Path(folder) / str(number) for number in range(self._objects)]
            bodies = [chance.randbytes(UNIQUE_BYTES) + self._rest for _ in made]
            for path, body in zip(made, bodies, strict=True):
                path.write_bytes(body)
            async with GatewayClient(self._credentials, patience_s=PATIENCE_S, context=self._context) as client:
                result = await send_files(client, _each(made), self._options, context=self._context)
        failed = [outcome.error for outcome in result.outcomes if outcome.error is not None]
        done.failures += [f"{error.code}: {error.message}" for error in failed]
        if result.receipt is not None:
            done.names |= {object_id(body) for body in bodies}
            done.bytes += result.receipt.bytes
        done.took_s.append(time.monotonic() - began)


class Storer:
    """Sends `instances` by C-STORE on one association; rejected for now, it waits and asks again, as devices do."""

    def __init__(self, port: int, *, instances: int, size_bytes: int) -> None:
        self._port, self._instances, self._size_bytes = port, instances, size_bytes
        self._rejected = 0

    def rejected(self) -> float:
        """Return how often it was rejected so far."""
        return self._rejected

    async def __call__(self, done: Done, chance: random.Random) -> None:
        """Do it once."""
        began = time.monotonic()
        pause_s = 0.5
        while not await self._associate(done, chance):
            self._rejected += 1
            await trio.sleep(pause_s * (0.5 + chance.random()))
            pause_s = min(2 * pause_s, 5.0)
        done.took_s.append(time.monotonic() - began)

    async def _associate(self, done: Done, chance: random.Random) -> bool:
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            await stream.send_all(associate_request(((CT, [EXPLICIT]),)))
            answer = await receive_pdu(stream)
            if answer is None or answer[0] == REJECTED:
                return False
            for _ in range(self._instances):
                await self._store(stream, done, chance)
            await stream.send_all(RELEASE)
            await receive_pdu(stream)
            return True

    async def _store(self, stream: trio.SocketStream, done: Done, chance: random.Random) -> None:
        instance = f"1.2.{chance.getrandbits(100)}"
        data_set = _image(instance, chance.randbytes(self._size_bytes))
        pieces = [data_set[at : at + 16_000] for at in range(0, len(data_set), 16_000)]
        sent = [pdv(piece, is_last=piece is pieces[-1]) for piece in pieces]
        await stream.send_all(data_pdu(pdv(store_request(instance), is_command=True)))
        await stream.send_all(b"".join(data_pdu(one) for one in sent))
        answer = await receive_pdu(stream)
        if answer is None or status_of(answer) != 0:
            done.failures.append(f"C-STORE answered {answer!r}"[:100])
            return
        done.names.add(instance)
        done.bytes += len(data_set)


async def keep_at_it(work: Work, workers: int, until: trio.Event, seed: str, done: Done | None = None) -> Done:
    """Have `workers` repeat `work` until `until` is set; each ends what it has begun. Adds to `done` as it goes."""
    done = done or Done()
    began = time.monotonic()

    async def repeat(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        while not until.is_set():
            await attempt(work, done, chance)

    async with trio.open_nursery() as nursery:
        for number in range(workers):
            nursery.start_soon(repeat, number)
    done.seconds = time.monotonic() - began
    return done


async def offer_for(work: Work, workers: int, window_s: float, seed: str) -> Done:
    """Have `workers` repeat `work` for `window_s` after it has settled; each ends what it has begun."""
    done, over = Done(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_at_it, work, workers, over, seed, done)
        await trio.sleep(min(SETTLE_S, window_s))
        began, before = time.monotonic(), done.bytes
        await trio.sleep(window_s)
        done.settled = (done.bytes - before, time.monotonic() - began)
        over.set()
    return done


async def do_all(work: Work, count: int, at_once: int, seed: str) -> Done:
    """Do `work` so many times, at most `at_once` at the same time."""
    done, places = Done(), trio.Semaphore(at_once)
    began = time.monotonic()

    async def one(number: int) -> None:
        async with places:
            await attempt(work, done, random.Random(f"{seed} {number}"))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    done.seconds = time.monotonic() - began
    return done


async def attempt(work: Work, done: Done, chance: random.Random) -> None:
    """Do it once; an error is a failure that is noted."""
    try:
        await work(done, chance)
    except* (FascicleError, OSError, trio.BrokenResourceError) as group:
        done.failures += [f"{type(error).__name__}: {error}"[:300] for error in group.exceptions]


async def _each(paths: list[Path]) -> AsyncIterator[SourceFile]:
    for path in paths:
        yield SourceFile(path, path.name, path.stat().st_size)


def _image(instance: str, pixels: bytes) -> bytes:
    changed = {0x00080018: uid(instance), 0x7FE00010: pixels}
    return b"".join(element(tag, vr, changed.get(tag, value)) for tag, vr, value in IMAGE)
