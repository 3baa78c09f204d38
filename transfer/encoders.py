"""Encodes wanted objects ahead of the flows, in threads that give way to all else on the machine.

Just so far ahead that the link does not wait, so that a better choice soon takes effect. What the flows take meanwhile
as it is, is none of the encoders' business: on a link that is faster than they are, part goes raw. Flows have blocks
of large objects encoded in the same threads, so that there are never more than were asked for. Refuses to do: choosing
(`transfer.choice`).
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import trio
from typing_extensions import Buffer

from transfer.chooser import Chooser
from transfer.dicom.pixels import Kind
from transfer.encodings import IMAGE_ENCODINGS, encode_checked, get_encoding
from transfer.encodings.interface import Encoder
from transfer.errors import NotSuitableError
from transfer.ledger import Ledger
from transfer.link import Link
from transfer.work import Encoded

T = TypeVar("T")
AHEAD_S: Final = 0.5
AHEAD_COUNT: Final = 2  # objects for each worker, however slow the link is
BATCH_BYTES: Final = 512 << 10  # small objects share a way to a thread and back
BATCH_COUNT: Final = 64
NICE: Final = 10  # more than what started this: only root may have less
NICE_MAX: Final = 19
WORKERS_MAX: Final = 16


def default_workers() -> int:
    """Return how many encoders a machine has unless it is told otherwise: one for each processor."""
    return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, WORKERS_MAX))


class Encoders:
    """The encoders of one transfer; `serve` until cancelled."""

    def __init__(self, ledger: Ledger, chooser: Chooser, link: Link, *, workers: int) -> None:
        self._ledger, self._chooser, self._link, self._workers = ledger, chooser, link, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="encode", initializer=_give_way)

    async def feed(self, encoder: Encoder, block: Buffer) -> tuple[bytes, float]:
        """Encode a block of a large object; return what is ready of it, and the seconds that this took."""
        return await _in_pool(self._pool, _timed, encoder.feed, block)

    async def serve(self) -> None:
        """Encode what waits for it; the libraries are loaded while the transfer is being opened."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_in_pool, self._pool, self._chooser.prepare)
                for _ in range(self._workers):
                    nursery.start_soon(self._work)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        work = self._ledger.work
        while True:
            await work.wait_ready_low(lambda: self._link.bytes_s * AHEAD_S, AHEAD_COUNT * self._workers)
            batch = await work.take_plain(BATCH_BYTES, BATCH_COUNT)
            try:
                bodies = [item.body for item in batch if item.body is not None]
                found = await _in_pool(self._pool, self._encode_all, bodies)
            except BaseException:
                for item in batch:
                    work.add_ready(item)
                raise
            for item, encoded in zip(batch, found, strict=True):
                self._ledger.encoded(item, encoded)

    def _encode_all(self, bodies: Sequence[Buffer]) -> list[Encoded | None]:
        """Return the forms that are chosen; runs in a thread."""
        return [encode_as_chosen(self._chooser, body) for body in bodies]


def encode_as_chosen(chooser: Chooser, body: Buffer) -> Encoded | None:
    """Return the form that is chosen for an object now, None where that is its own or nothing is gained (blocks)."""
    size_bytes = memoryview(body).nbytes
    kind, name, pixels = chooser.choose(body)
    if name == "raw":
        return None
    started_s, processor_s = time.perf_counter(), time.thread_time()
    try:
        stored = encode_checked(
            get_encoding(name), body, pixels, seconds_max=chooser.seconds_max(kind, name, size_bytes), prove=False
        )
    except NotSuitableError:
        chooser.set_aside(kind, name)
        return None
    elapsed_s, processor_s = time.perf_counter() - started_s, time.thread_time() - processor_s
    chooser.learn(
        kind, name, size_bytes=size_bytes, stored_bytes=len(stored), processor_s=processor_s, elapsed_s=elapsed_s
    )
    return Encoded(name, stored, kind)


def choose_for_large(chooser: Chooser, head: Buffer) -> tuple[Kind | str, str]:
    """Return kind and encoding for a large object that begins with `head`; raw where nothing is gained (blocks)."""
    kind, name, _ = chooser.choose_large(head)
    if name in IMAGE_ENCODINGS or name == "raw":
        return kind, name
    try:
        encode_checked(get_encoding(name), head, prove=False)
    except NotSuitableError:
        chooser.set_aside(kind, name)
        return kind, "raw"
    return kind, name


def _timed(feed: Callable[[Buffer], bytes], block: Buffer) -> tuple[bytes, float]:
    began_s = time.perf_counter()
    return feed(block), time.perf_counter() - began_s


def _give_way() -> None:
    """Let the loop that keeps the link full, and whatever else runs on a workstation, go before this thread."""
    if hasattr(os, "setpriority"):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + NICE, NICE_MAX))


async def _in_pool(pool: ThreadPoolExecutor, action: Callable[..., T], *arguments: object) -> T:
    """Run `action` in a thread of the pool; when cancelled, what it returns is dropped."""
    await trio.lowlevel.checkpoint_if_cancelled()  # a pool that was shut down takes nothing more
    done, token = trio.Event(), trio.lowlevel.current_trio_token()

    def tell(_: "Future[T]") -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:
            return  # nobody waits any more

    future = pool.submit(action, *arguments)
    future.add_done_callback(tell)
    await done.wait()
    return future.result()
