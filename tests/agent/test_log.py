"""The agent's log has no names of watched files: exports are often named by patient."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from agent.after import Rule, clear
from agent.delivery import Destination, Sent
from agent.items import File, Item, NewItem, Priority, mark_of, stamp_of
from agent.queue import Queue
from agent.supervise import supervise, what_failed
from agent.watch import Watcher
from transfer.errors import StorageError, UnusableFileError
from transfer.objects import object_id

NAME = "DOE^JOHN"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / NAME).mkdir(parents=True)
    return tmp_path / "in"


def test_the_mark_is_found_by_a_command() -> None:
    assert mark_of(b"/in/a") == hashlib.sha256(b"/in/a").hexdigest()[:16]


async def test_of_what_cannot_be_taken(folder: Path, queue: Queue) -> None:
    (folder / NAME / "link").symlink_to("nowhere")
    watcher = Watcher(str(folder), queue, destinations=["cloud"])
    with capture_logs() as logs:
        await watcher.look()
    (told,) = logs
    assert (told["event"], told["folder"]) == ("watch_trouble", str(folder))
    assert told["file"] == mark_of(os.fsencode(folder / NAME / "link"))
    assert NAME not in str(logs)
    assert NAME in watcher.statistics().troubles[0][0]


def test_of_what_cannot_be_moved(folder: Path, tmp_path: Path) -> None:
    path = folder / NAME / "a"
    path.write_bytes(b"a")
    (tmp_path / "blocked").write_bytes(b"a file where the folder should be")
    file = File(os.fsencode(path), 1, stamp_of(path.stat()))
    item = Item(1, str(folder), file, "a", Priority.NORMAL, 0.0, object_id(b"a"))
    with capture_logs() as logs:
        assert clear([item], Rule(str(folder), "move", str(tmp_path / "blocked" / "sent"))).kept == [item]
    (told,) = logs
    assert (told["event"], told["file"]) == ("after_failed", mark_of(file.path))
    assert "Not a directory" in told["error"]
    assert NAME not in str(logs)


async def test_of_what_has_vanished(folder: Path, queue: Queue) -> None:
    path = os.fsencode(folder / NAME / "gone")

    async def fail(files: AsyncIterator[Item], priority: Priority) -> list[Sent]:
        return [Sent(each.item_id, error=UnusableFileError(f"{folder}/{NAME}: gone")) async for each in files]

    await queue.add([NewItem(str(folder), File(path, 1, 1), "a", Priority.NORMAL, ["cloud"])])
    destination = Destination("cloud", queue, fail, lambda found: found.location(folder), lambda: True)
    with capture_logs() as logs:
        await destination._lanes[1]._attempt()
    assert [each["file"] for each in logs if each["event"] == "file_vanished"] == [mark_of(path)]
    assert NAME not in str(logs)


async def test_of_a_task_that_crashed(folder: Path, autojump_clock: trio.testing.MockClock) -> None:
    failures = iter([OSError(5, "Input/output error", f"{folder}/{NAME}"), StorageError(f"{folder}/{NAME}: full")])

    async def task() -> None:
        for failure in failures:
            raise failure

    with capture_logs() as logs:
        await supervise("watch", task)
    assert [each["code"] for each in logs] == ["internal", "storage"]
    assert logs[0]["error"].startswith("OSError: Input/output error in task:")
    assert NAME not in str(logs)


def test_a_failure_of_ours_says_what_the_system_said() -> None:
    error = StorageError(f"/in/{NAME}: cannot be flushed")
    error.__cause__ = OSError(5, "x", NAME)
    assert what_failed(error) == "StorageError: Input/output error"
