"""The queue keeps what is to go, per destination, over reopening and damage."""

import os
import sqlite3
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.database import _set_aside
from agent.items import SPOOL, Backlog, File, Item, NewItem, Outcome, Priority
from agent.queue import open_queue
from transfer.errors import SettingsError, StorageError

A, B = "cloud-a", "cloud-b"


def new(name: str, *destinations: str, priority: Priority = Priority.NORMAL, size_bytes: int = 10) -> NewItem:
    return NewItem("/in", File(name.encode(), size_bytes, 5), name, priority, destinations or (A,))


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


def done(item: Item, object_id: str = "id") -> Outcome:
    return Outcome(item.item_id, "done", object_id=object_id)


async def test_urgent_first_then_by_arrival(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.add([new("bulk", priority=Priority.BULK), new("first"), new("second")])
        await queue.add([new("stat", priority=Priority.STAT)])
        found = await queue.ready(A, 0, 10)
        assert names(found) == ["stat", "first", "second", "bulk"]
        assert names(await queue.ready(A, 0, 2, without=[found[0].item_id])) == ["first", "second"]
        assert await queue.ready(B, 0, 10) == []


async def test_what_is_known_is_not_added_again(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        assert await queue.add([new("a"), new("b")]) == 2
        assert await queue.add([new("a"), new("c")]) == 1
        assert names(await queue.ready(A, 0, 10)) == ["a", "b", "c"]


async def test_a_changed_file_begins_anew(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.add([new("a", A, B)])
        await queue.record(A, [done((await queue.ready(A, 0, 1))[0])])
        assert await queue.add([new("a", A, B, size_bytes=11)]) == 1
        assert [item.file.size_bytes for item in await queue.ready(A, 0, 10)] == [11]
        assert await queue.complete(10) == []


async def test_an_item_is_let_go_only_when_every_destination_has_it(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.add([new("a", A, B)])
        (item,) = await queue.ready(A, 0, 1)
        await queue.record(A, [done(item)])
        await queue.record(A, [done(item)])
        assert await queue.complete(10) == []
        assert await queue.ready(A, 0, 1) == []
        await queue.record(B, [done(item)])
        (complete,) = await queue.complete(10)
        assert (complete.item_id, complete.object_id) == (item.item_id, "id")
        await queue.let_go([complete], keep=False)
        assert await queue.complete(10) == []
        assert await queue.unknown("/in", [item.file]) == [item.file]


async def test_other_bytes_at_the_second_destination_begin_anew(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.add([new("a", A, B)])
        (item,) = await queue.ready(A, 0, 1)
        await queue.record(A, [done(item, "one")])
        await queue.record(B, [done(item, "two")])
        assert await queue.complete(10) == []
        assert len(await queue.ready(A, 0, 9)) == len(await queue.ready(B, 0, 9)) == 1
        await queue.record(A, [done(item, "two")])
        await queue.record(B, [done(item, "two")])
        assert [item.object_id for item in await queue.complete(10)] == ["two"]


async def test_kept_files_are_remembered_as_they_were(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.add([new("a")])
        (item,) = await queue.ready(A, 0, 1)
        await queue.record(A, [done(item)])
        await queue.let_go(await queue.complete(10), keep=True)
    async with open_queue(tmp_path / "queue.db") as queue:
        changed = File(b"a", 10, 6)
        assert await queue.unknown("/in", [item.file, changed, File(b"b", 1, 1)]) == [changed, File(b"b", 1, 1)]
        assert await queue.unknown("/other", [item.file]) == [item.file]


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9") + "/" + "n" * 255
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.add([NewItem(SPOOL, File(os.fsencode(odd), 7, 8), "odd", Priority.STAT, [A, B]), new("later")])
        first, later = await queue.ready(A, 0, 2)
        await queue.record(A, [Outcome(later.item_id, "waiting", next_try_s=100.0, reason="busy")])
        await queue.record(B, [Outcome(first.item_id, "parked", reason="not_dicom")])
    async with open_queue(tmp_path / "queue.db") as queue:
        assert await queue.ready(A, 99.0, 10) == [first]
        assert names(await queue.ready(A, 100.0, 10)) == ["odd", "later"]
        assert os.fsdecode(first.file.path) == odd
        assert await queue.attempts(later.item_id, A) == 1
        assert await queue.parked(10) == [(B, SPOOL, os.fsencode(odd), "not_dicom")]
        assert await queue.backlogs() == [
            Backlog(A, 2, 17, 1, 0, first.added_at_s),
            Backlog(B, 0, 0, 0, 1, None),
        ]
        assert await queue.unpark() == 1
        assert await queue.ready(B, 0, 10) == [first]


async def test_next_try(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        assert await queue.next_try_s(A) is None
        await queue.add([new("a"), new("b")])
        first, second = await queue.ready(A, 0, 2)
        for item, next_try_s in ((first, 50.0), (second, 40.0)):
            await queue.record(A, [Outcome(item.item_id, "waiting", next_try_s=next_try_s)])
        assert await queue.next_try_s(A) == 40.0


async def test_news_wake_who_waits(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        news = queue.news
        async with trio.open_nursery() as nursery:
            nursery.start_soon(news.wait)
            await queue.add([new("a")])
        assert news.is_set()


async def test_a_damaged_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"not a database" * 1000)
    async with open_queue(path) as queue:
        assert await queue.add([new("a")]) == 1
    assert [aside.read_bytes()[:5] for aside in tmp_path.glob("queue.db.damaged-*")] == [b"not a"]


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "queue.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SettingsError, match="newer version"):
        async with open_queue(tmp_path / "queue.db"):
            pass


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        async with open_queue(tmp_path / "missing" / "queue.db"):
            pass


async def test_what_waits_is_tried_at_once_after_a_start_and_its_failures_stay_known(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.add([new("a"), new("b")])
        first, second = await queue.ready(A, 0, 2)
        await queue.record(A, [Outcome(first.item_id, "waiting", next_try_s=1e12, reason="busy"), done(second)])
    async with open_queue(tmp_path / "queue.db") as queue:
        assert await queue.ready(A, 5.0, 9) == []
        await queue.hurry()
        assert await queue.ready(A, 5.0, 9) == [first]
        assert await queue.attempts(first.item_id, A) == 1


async def test_the_queue_s_one_connection_is_durable(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        names = ("journal_mode", "synchronous", "mmap_size", "foreign_keys", "wal_autocheckpoint")
        found = [queue._db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    assert found == ["wal", 2, 0, 1, 1000], "2 is FULL"
    assert not (tmp_path / "queue.db-wal").exists(), "the last to close is the one that writes"


def test_a_log_that_a_damaged_database_has_left_is_set_aside_with_it(tmp_path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"queue.db{suffix}").write_text(suffix)
    _set_aside(tmp_path / "queue.db", tmp_path / "aside")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"aside": "", "aside-wal": "-wal"}


actions = st.lists(
    st.tuples(st.sampled_from([A, B]), st.integers(0, 3), st.sampled_from(["done", "waiting", "parked"])), max_size=30
)


@settings(deadline=None, max_examples=25)  # each example is a database of its own
@given(actions)
def test_whatever_happens_an_item_is_complete_exactly_when_both_have_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    async def follow() -> None:
        async with open_queue(tmp_path_factory.mktemp("queue") / "queue.db") as queue:
            await queue.add([new(str(number), A, B) for number in range(4)])
            items = await queue.ready(A, 0, 9)
            have: dict[int, set[str]] = {item.item_id: set() for item in items}
            for destination, number, state in steps:
                await queue.record(destination, [Outcome(items[number].item_id, state, object_id="id")])
                if state == "done":
                    have[items[number].item_id].add(destination)
            assert {item.item_id for item in await queue.complete(9)} == {i for i, at in have.items() if at == {A, B}}

    trio.run(follow)
