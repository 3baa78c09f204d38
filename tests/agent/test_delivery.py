"""One destination's task: batches by priority, back-off, parking; and a dead destination holds up no other."""

import errno
import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from agent.delivery import BATCH_FILES, Destination, Sent, _vanished, outcome, portion
from agent.intake import new_item
from agent.items import SPOOL, File, Item, NewItem, Outcome, Priority
from agent.queue import Queue
from agent.retry import CAP_S
from agent.spool import open_spool
from agent.spoolplace import identity_of, remember
from agent.supervise import supervise
from transfer.errors import (
    CorruptError,
    FascicleError,
    NotDicomError,
    StorageError,
    TruncatedError,
    UnauthorisedError,
    UnreachableError,
    UnusableFileError,
)

A, B = "cloud-a", "cloud-b"


def new(name: str, *destinations: str, priority: Priority = Priority.NORMAL, size_bytes: int = 10) -> NewItem:
    return NewItem("/in", File(name.encode(), size_bytes, 5), name, priority, destinations or (A,))


def item(number: int, priority: Priority = Priority.NORMAL, size_bytes: int = 10) -> Item:
    return Item(number, "/in", File(b"%d" % number, size_bytes, 5), str(number), priority, 0.0, "")


def here(found: Item) -> Path:
    return Path(__file__)


def nowhere(found: Item) -> Path:
    return Path("/nowhere/at/all")


class Gateway:
    """A send function whose answers a test decides: takes everything it is given, and remembers it."""

    def __init__(self, answer: Callable[[Item], FascicleError | None] = lambda found: None) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []

    async def deliver(self, files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        found = [each async for each in files]
        self.batches.append([each.name for each in found])
        return [Sent(each.item_id, f"id-{each.name}", self.answer(each)) for each in found]


async def wait_until(queue: Queue, reached: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while True:
            news = queue.news
            if reached():
                return
            await news.wait()


async def run_until(queue: Queue, destinations: Sequence[Destination], reached: Callable[[], bool]) -> None:
    async with trio.open_nursery() as nursery:
        for destination in destinations:
            nursery.start_soon(destination.serve)
        await wait_until(queue, reached)
        nursery.cancel_scope.cancel()


def delivered(destination: Destination) -> int:
    return destination.statistics().delivered_objects


async def test_everything_is_delivered_in_one_batch(queue: Queue) -> None:
    gateway = Gateway()
    destination = Destination(A, queue, gateway.deliver, here, lambda: True)
    await queue.add([new("a"), new("b", priority=Priority.BULK), new("c")])
    await run_until(queue, [destination], lambda: delivered(destination) == 3)
    assert gateway.batches == [["a", "c", "b"]]
    assert [each.object_id for each in await queue.complete(9)] == ["id-a", "id-b", "id-c"]
    assert destination.statistics().delivered_bytes == 30


async def test_stat_goes_in_a_transfer_of_its_own(queue: Queue) -> None:
    gateway = Gateway()
    destination = Destination(A, queue, gateway.deliver, here, lambda: True)
    await queue.add([new("normal"), new("stat-1", priority=Priority.STAT), new("stat-2", priority=Priority.STAT)])
    await run_until(queue, [destination], lambda: delivered(destination) == 3)
    assert sorted(gateway.batches) == [["normal"], ["stat-1", "stat-2"]]


async def test_stat_overtakes_a_running_batch(queue: Queue) -> None:
    stat_has_gone = trio.Event()
    batches: list[tuple[Priority, list[str]]] = []

    async def deliver(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        found = []
        async for each in files:
            found.append(each)
            if each.name == "1":
                await queue.add([new("stat", priority=Priority.STAT)])
                await stat_has_gone.wait()
        batches.append((priority, [each.name for each in found]))
        if priority is Priority.STAT:
            stat_has_gone.set()
        return [Sent(each.item_id, "id") for each in found]

    destination = Destination(A, queue, deliver, here, lambda: True)
    await queue.add([new(str(number), priority=Priority.BULK) for number in range(5)])
    await run_until(queue, [destination], lambda: delivered(destination) == 6)
    assert batches == [(Priority.STAT, ["stat"]), (Priority.NORMAL, ["0", "1", "2", "3", "4"])]


async def test_a_lane_that_waits_does_not_wake_for_the_other(queue: Queue) -> None:
    await queue.add([new("stat", priority=Priority.STAT), new("bulk", priority=Priority.BULK)])
    (stat, bulk) = await queue.ready(A, 0, 9)
    await queue.record(A, [Outcome(stat.item_id, "waiting", next_try_s=50.0)])
    await queue.record(A, [Outcome(bulk.item_id, "waiting", next_try_s=70.0)])
    assert await queue.next_try_s(A, [Priority.STAT]) == 50.0
    assert await queue.next_try_s(A, [Priority.NORMAL, Priority.BULK]) == 70.0
    assert [each.name for each in await queue.ready(A, 99, 9, priorities=[Priority.STAT])] == ["stat"]
    assert await queue.ready(A, 60, 9, priorities=[Priority.NORMAL, Priority.BULK]) == []


async def test_a_batch_is_bounded(queue: Queue) -> None:
    gateway = Gateway()
    destination = Destination(A, queue, gateway.deliver, here, lambda: True)
    await queue.add([new(str(number)) for number in range(BATCH_FILES + 5)])
    await run_until(queue, [destination], lambda: delivered(destination) == BATCH_FILES + 5)
    assert [len(batch) for batch in gateway.batches] == [BATCH_FILES, 5]


async def test_a_dead_destination_holds_up_no_other(queue: Queue) -> None:
    async def refuse(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        raise UnreachableError("the gateway does not answer")

    async def hang(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        await trio.sleep_forever()
        raise AssertionError

    live = Gateway()
    dead, slow = (
        Destination(B, queue, refuse, here, lambda: True),
        Destination("cloud-c", queue, hang, here, lambda: True),
    )
    well = Destination(A, queue, live.deliver, here, lambda: True)
    await queue.add([new(str(number), A, B, "cloud-c") for number in range(50)])
    await run_until(queue, [dead, slow, well], lambda: delivered(well) == 50)
    assert await queue.complete(99) == []
    assert len(await queue.ready(B, 0, 99)) == len(await queue.ready("cloud-c", 0, 99)) == 50
    assert dead.statistics().failures >= 1
    assert dead.statistics().last_error == "unreachable: the gateway does not answer"


async def test_a_dead_destination_gets_everything_when_it_is_back(
    queue: Queue, autojump_clock: trio.testing.MockClock
) -> None:
    moments = itertools.count()
    live = Gateway()

    async def deliver(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        if next(moments) < 9:
            raise UnreachableError("not yet")
        return await live.deliver(files, priority)

    destination = Destination(A, queue, deliver, here, lambda: True)
    await queue.add([new("a"), new("b")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(destination.serve)
        while not await queue.complete(2):
            await trio.sleep(CAP_S)
        nursery.cancel_scope.cancel()
    assert live.batches == [["a", "b"]]
    assert destination.statistics().failures == 0


async def test_files_that_cannot_be_used_are_parked_and_block_nothing(queue: Queue) -> None:
    gateway = Gateway(lambda each: NotDicomError("not DICOM") if each.name == "bad" else None)
    destination = Destination(A, queue, gateway.deliver, here, lambda: True)
    await queue.add([new("bad"), new("good")])
    await run_until(queue, [destination], lambda: delivered(destination) == 1)
    assert await queue.parked(9) == [(A, "/in", b"bad", "not_dicom")]
    assert gateway.batches == [["bad", "good"]]
    assert [each.name for each in await queue.complete(9)] == ["good"]


async def test_a_vanished_file_is_dropped(queue: Queue) -> None:
    gateway = Gateway(lambda each: TruncatedError("gone"))
    destination = Destination(A, queue, gateway.deliver, nowhere, lambda: True)
    await queue.add([new("gone")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(destination.serve)
        with trio.fail_after(20):
            while await queue.backlogs():
                await queue.news.wait()
        nursery.cancel_scope.cancel()


async def test_what_the_spool_holds_is_not_forgotten_while_its_disk_is_away(queue: Queue, tmp_path: Path) -> None:
    async with open_spool(tmp_path / "spool", reserve_bytes=0) as spool:
        incoming = await spool.begin("test")
        await incoming.write(b"s")
        image = new_item(await incoming.finish(), [A], Priority.NORMAL)
        await queue.add([image])
        gateway = Gateway(lambda found: UnusableFileError("cannot be read") if (tmp_path / "away").exists() else None)
        identity = remember(tmp_path / "spool_folder", spool.folder)
        destination = Destination(
            A,
            queue,
            gateway.deliver,
            lambda found: found.location(spool.ready),
            lambda: identity_of(spool.folder) == identity,
        )
        spool.folder.rename(tmp_path / "away")
        spool.ready.mkdir(parents=True)  # as a mount point may have had for long
        await destination._lanes[1]._attempt()
        assert [(each.objects, each.parked) for each in await queue.backlogs()] == [(1, 0)]
        spool.ready.rmdir()
        (tmp_path / "away").rename(spool.folder)
        await queue.hurry()
        await run_until(queue, [destination], lambda: delivered(destination) == 1)


@pytest.mark.parametrize(("answers", "gone"), [([True, True], 1), ([False, True], 0), ([True, False], 0)])
def test_a_disk_that_comes_or_goes_meanwhile_says_nothing(tmp_path: Path, answers: list[bool], gone: int) -> None:
    found = replace(item(1), source=SPOOL)
    told = iter(answers)
    assert len(_vanished([found], lambda _: tmp_path / "gone", lambda: next(told))) == gone


def test_an_error_does_not_say_that_a_file_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = item(1)
    (tmp_path / "a").write_bytes(b"a")
    assert _vanished([found], lambda _: tmp_path / "gone", lambda: False) == [found]
    assert _vanished([found], lambda _: tmp_path / "a" / "below", lambda: False) == [found]
    for number in (errno.EACCES, errno.EIO, errno.ESTALE):
        monkeypatch.setattr("os.lstat", partial(_fail, number))
        assert _vanished([found], lambda _: tmp_path / "a", lambda: True) == []


def _fail(number: int, path: Path) -> None:
    raise OSError(number, os.strerror(number), path)


async def test_an_item_that_fails_alone_waits_and_the_rest_is_done(queue: Queue) -> None:
    gateway = Gateway(lambda each: CorruptError("differs") if each.name == "b" else None)
    destination = Destination(A, queue, gateway.deliver, here, lambda: True)
    await queue.add([new("a"), new("b")])
    await run_until(queue, [destination], lambda: delivered(destination) == 1)
    assert [each.name for each in await queue.complete(9)] == ["a"]
    assert (await queue.next_try_s(A) or 0) > 0


async def test_an_unanswered_item_is_not_done(queue: Queue) -> None:
    async def deliver(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        found = [each async for each in files]
        return [Sent(found[0].item_id, "id")]

    destination = Destination(A, queue, deliver, here, lambda: True)
    await queue.add([new("a"), new("b")])
    await run_until(queue, [destination], lambda: delivered(destination) == 1)
    assert [each.name for each in await queue.complete(9)] == ["a"]


def test_outcomes() -> None:
    assert outcome(Sent(1, "id"), 0, 100.0, 0.5) == Outcome(1, "done", object_id="id")
    assert outcome(Sent(1, error=NotDicomError("x")), 9, 100.0, 0.5) == Outcome(1, "parked", reason="not_dicom")
    assert outcome(Sent(1, error=StorageError("x")), 2, 100.0, 0.5) == Outcome(1, "waiting", "", 102.0, "storage")
    assert outcome(Sent(1, error=TruncatedError("x")), 9, 100.0, 0.5).state == "parked"
    assert outcome(Sent(1, error=UnusableFileError("x")), 1, 0.0, 0.0) == Outcome(
        1, "waiting", "", 60.0, "unusable_file"
    )
    late = outcome(Sent(1, error=UnauthorisedError("x")), 0, 100.0, 0.0)
    assert (late.state, late.next_try_s) == ("waiting", 250.0)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 100))
def test_a_portion_is_a_bounded_head(sizes: list[int], limit_bytes: int) -> None:
    page = [item(number, size_bytes=size) for number, size in enumerate(sizes)]
    chosen = list(portion(page, limit_bytes))
    assert chosen == page[: len(chosen)]
    assert bool(chosen) == bool(page)
    assert sum(each.file.size_bytes for each in chosen[:-1]) < limit_bytes


async def test_a_crashing_task_is_started_again(autojump_clock: trio.testing.MockClock) -> None:
    crashes = iter([ZeroDivisionError(), StorageError("disk"), UnauthorisedError("certificate")])
    runs = []

    async def task() -> None:
        runs.append(trio.current_time())
        for crash in crashes:
            raise crash

    await supervise("test", task)
    assert len(runs) == 4
    assert runs[1] - runs[0] <= 1 and runs[2] - runs[1] <= 2 and runs[3] - runs[2] >= 150
