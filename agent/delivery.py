"""Delivers to one destination for ever, batch after batch; a slow or dead destination holds up no other.

Each destination has two lanes, each with its own transfers: stat, and all else. They run side by side, and while the
stat lane sends, the other pauses (`transfer.control.gate`), so that a stat study overtakes a batch under way. A batch
takes what is ready by priority while it runs, and ends after `BATCH_FILES` or `BATCH_S`. An item is done only when
`deliver` has returned with its object id, which is after the commit's receipt. A batch that fails as a whole backs its
lane off; an item that fails alone is tried again later, or parked when its file is no DICOM or truncated. Waits are by
trio's clock, which nobody sets. Refuses to do: the sending.
"""

import contextlib
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from agent.items import SPOOL, Item, Outcome, Priority, mark_of
from agent.queue import Queue
from agent.retry import back_off_s, is_retryable, unusable_s
from transfer.errors import FascicleError, NotDicomError, StorageError, TruncatedError, UnusableFileError
from transfer.groups import first_error_only
from transfer.log import get_logger

log = get_logger()
BATCH_FILES: Final = 1000
BATCH_S: Final = 30.0
PAGE_FILES: Final = 128
PAGE_BYTES: Final = 32 * 1024 * 1024
LANES: Final = ((Priority.STAT,), (Priority.NORMAL, Priority.BULK))


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one item: its object id after the commit, or the error."""

    item_id: int
    object_id: str = ""
    error: FascicleError | None = None


Deliver = Callable[[AsyncIterator[Item], Priority], Awaitable[Sequence[Sent]]]  # files, and their lane's priority


@dataclass(frozen=True, slots=True)
class DestinationStatistics:
    """How a destination does: failures in a row (0: well), the last error, when it is tried again (Unix seconds)."""

    name: str
    state: str
    failures: int
    last_error: str
    next_try_s: float | None
    delivered_objects: int
    delivered_bytes: int


def portion(page: Sequence[Item], limit_bytes: int = PAGE_BYTES) -> Iterator[Item]:
    """Yield the head of `page` up to about `limit_bytes` (at least one item): then it is asked again what is urgent."""
    total = 0
    for item in page:
        yield item
        total += item.file.size_bytes
        if total >= limit_bytes:
            return


def outcome(sent: Sent, attempts: int, now_s: float, draw: float) -> Outcome:
    """Decide what becomes of an item that failed `attempts` times before."""
    if sent.error is None:
        return Outcome(sent.item_id, "done", object_id=sent.object_id)
    if isinstance(sent.error, NotDicomError | TruncatedError):
        return Outcome(sent.item_id, "parked", reason=sent.error.code)
    if isinstance(sent.error, UnusableFileError):
        wait_s = unusable_s(attempts + 1, draw)
    else:
        wait_s = back_off_s(attempts + 1, draw, retryable=sent.error.retryable)
    return Outcome(sent.item_id, "waiting", next_try_s=now_s + wait_s, reason=sent.error.code)


class Batch:
    """The items that one transfer takes, chosen while it runs."""

    def __init__(self, queue: Queue, destination: str, priorities: Sequence[Priority] = tuple(Priority)) -> None:
        self._queue, self._destination, self._priorities = queue, destination, priorities
        self._ends_s = trio.current_time() + BATCH_S
        self.taken: dict[int, Item] = {}

    async def files(self) -> AsyncGenerator[Item, None]:
        """Yield what is ready, the most urgent first, until the batch is full."""
        while page := await self._page():
            for item in portion(page):
                self.taken[item.item_id] = item
                yield item

    async def _page(self) -> list[Item]:
        room = min(PAGE_FILES, BATCH_FILES - len(self.taken))
        if room <= 0 or (self.taken and trio.current_time() >= self._ends_s):
            return []
        return await self._queue.ready(
            self._destination, trio.current_time(), room, without=self.taken, priorities=self._priorities
        )


class Destination:
    """One destination's task: its lanes, side by side."""

    def __init__(
        self,
        name: str,
        queue: Queue,
        deliver: Deliver,
        locate: Callable[[Item], Path],
        is_spool_there: Callable[[], bool],
    ) -> None:
        self.name = name
        self._lanes = [
            _Lane(name, queue, deliver, locate, is_spool_there, priorities=priorities) for priorities in LANES
        ]

    async def serve(self) -> None:
        """Deliver what is ready; wait when nothing is."""
        with first_error_only():
            async with trio.open_nursery() as nursery:
                for lane in self._lanes:
                    nursery.start_soon(lane.serve)

    def statistics(self) -> DestinationStatistics:
        """Return how the destination does: as its worse lane, with what both have delivered."""
        found = [lane.statistics() for lane in self._lanes]
        worst = max(found, key=lambda each: (each.failures, each.last_error != "", each.state != "idle"))
        return replace(
            worst,
            delivered_objects=sum(each.delivered_objects for each in found),
            delivered_bytes=sum(each.delivered_bytes for each in found),
        )


class _Lane:
    """Takes its priorities from the queue, hands batches to `deliver`, records what became of them."""

    def __init__(
        self,
        name: str,
        queue: Queue,
        deliver: Deliver,
        locate: Callable[[Item], Path],
        is_spool_there: Callable[[], bool],
        *,
        priorities: Sequence[Priority],
    ) -> None:
        self.name, self._queue, self._deliver, self._locate = name, queue, deliver, locate
        self._is_spool_there, self._priorities = is_spool_there, priorities
        self._failures = 0
        self._state, self._last_error = "idle", ""
        self._next_try_s: float | None = None
        self._objects = self._bytes = 0

    async def serve(self) -> None:
        while True:
            news = self._queue.news
            if await self._queue.ready(self.name, trio.current_time(), 1, priorities=self._priorities):
                await self._attempt()
            else:
                await self._wait(news)

    def statistics(self) -> DestinationStatistics:
        return DestinationStatistics(
            self.name, self._state, self._failures, self._last_error, self._next_try_s, self._objects, self._bytes
        )

    async def _wait(self, news: trio.Event) -> None:
        next_try_s = await self._queue.next_try_s(self.name, self._priorities)
        with trio.move_on_after(float("inf") if next_try_s is None else max(0.0, next_try_s - trio.current_time())):
            await news.wait()

    async def _attempt(self) -> None:
        batch = Batch(self._queue, self.name, self._priorities)
        self._state = "sending"
        try:
            async with contextlib.aclosing(batch.files()) as files:
                sent = await self._deliver(files, self._priorities[0])
        except FascicleError as error:
            await self._back_off(error)
            return
        finally:
            self._state = "idle"
        await self._record(batch, sent)

    async def _back_off(self, error: FascicleError) -> None:
        self._failures += 1
        wait_s = back_off_s(self._failures, random.random(), retryable=is_retryable(error))  # noqa: S311 - no secret
        self._last_error, self._next_try_s = f"{error.code}: {error.message}", time.time() + wait_s
        log.warning(
            "destination_failed", destination=self.name, failures=self._failures, wait_s=round(wait_s, 1),
            code=error.code, error=error.message,
        )  # fmt: skip
        self._state = "backing off"
        await trio.sleep(wait_s)
        self._state, self._next_try_s = "idle", None

    async def _record(self, batch: Batch, sent: Sequence[Sent]) -> None:
        self._failures = 0
        answered = {each.item_id: each for each in sent}
        unanswered = StorageError("the sender said nothing of this file")
        outcomes = []
        for item_id in batch.taken:
            each = answered.get(item_id) or Sent(item_id, error=unanswered)
            attempts = await self._queue.attempts(item_id, self.name) if each.error else 0
            outcomes.append(outcome(each, attempts, trio.current_time(), random.random()))  # noqa: S311 - no secret
        await self._queue.record(self.name, outcomes)
        unusable = {each.item_id for each in sent if isinstance(each.error, UnusableFileError)}
        await self._forget_vanished([item for item_id, item in batch.taken.items() if item_id in unusable])
        self._count(batch, outcomes)

    async def _forget_vanished(self, unusable: Sequence[Item]) -> None:
        """Drop what can never be sent, because its file is gone; say so."""
        if not unusable:
            return
        vanished = await trio.to_thread.run_sync(_vanished, unusable, self._locate, self._is_spool_there)
        for item in vanished:
            log.warning("file_vanished", destination=self.name, folder=item.source, file=mark_of(item.file.path))
        await self._queue.let_go(vanished, keep=False)

    def _count(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        done = [batch.taken[each.item_id] for each in outcomes if each.state == "done"]
        size_bytes = sum(item.file.size_bytes for item in done)
        self._objects += len(done)
        self._bytes += size_bytes
        log.info(
            "batch_delivered", destination=self.name, objects=len(done), bytes=size_bytes,
            parked=sum(each.state == "parked" for each in outcomes),
            failed=sum(each.state == "waiting" for each in outcomes),
        )  # fmt: skip


def _vanished(items: Sequence[Item], locate: Callable[[Item], Path], is_spool_there: Callable[[], bool]) -> list[Item]:
    was_there = is_spool_there()
    gone = [item for item in items if _is_gone(locate(item))]
    is_there = was_there and is_spool_there()  # a disk that came or went meanwhile says nothing
    return [item for item in gone if is_there or item.source != SPOOL]


def _is_gone(path: Path) -> bool:
    """Tell whether a file is surely gone; an error says nothing, nor does a spool whose disk is away or another.

    A watched file that comes back is found again; what the spool holds is looked for at the start only, so that an
    image that was forgotten while its disk was away would wait for that.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
