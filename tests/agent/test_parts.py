"""Intake after a crash, the status file, systemd's notification and the lock."""

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from agent.delivery import Destination
from agent.intake import serve_intake
from agent.items import File, NewItem, Outcome, Priority
from agent.lock import open_lock
from agent.queue import open_queue
from agent.report import Reporter, Unsent, read_report, serve_reports, status_path
from agent.spool import Spool, open_spool
from agent.systemd import notify
from agent.watch import Watcher
from transfer.errors import NotStoredError, SettingsError, StorageError


async def put(spool: Spool, data: bytes) -> str:
    incoming = await spool.begin("test")
    await incoming.write(data)
    return (await incoming.finish()).name


async def test_what_was_spooled_before_and_after_the_start_is_queued(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue, open_spool(tmp_path / "spool", reserve_bytes=0) as spool:
        names = [await put(spool, b"before")]
        for attempt in range(2):  # the second time as after a crash: nothing is queued twice
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_intake, queue, spool, ["cloud"], Priority.NORMAL)
                names.append(await put(spool, b"after"))
                with trio.fail_after(20):
                    while len(found := await queue.ready("cloud", 0, 9)) < attempt + 2:
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert [os.fsdecode(item.file.path) for item in found] == names
        assert [item.location(spool.ready).read_bytes() for item in found] == [b"before", b"after", b"after"]
        assert [item.name for item in found] == [f"{name}.dcm" for name in names]


async def test_the_report_says_what_is_still_to_go(tmp_path: Path) -> None:
    async def never(files: object) -> list[object]:
        raise AssertionError

    odd = b"/in/caf\xe9"
    async with open_queue(tmp_path / "queue.db") as queue, open_spool(tmp_path / "spool", reserve_bytes=7) as spool:
        files = [File(odd, 10, 1), File(b"/in/b", 20, 1)]
        await queue.add([NewItem("/in", file, "n", Priority.STAT, ["cloud", "removed"]) for file in files])
        first, _ = await queue.ready("cloud", 0, 9)
        await queue.record("cloud", [Outcome(first.item_id, "parked", reason="not_dicom")])
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "link").symlink_to("nowhere")
        watcher = Watcher(str(tmp_path / "in"), queue, destinations=["cloud"])
        await watcher.look()
        destination = Destination("cloud", queue, never, lambda item: item.location(spool.ready), lambda: True)
        report = Reporter(queue, spool, [destination], [watcher]).report
        path = status_path(tmp_path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_reports, report, path)
            with trio.fail_after(20):
                while not path.exists():
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    found = read_report(path)
    cloud, removed = found.destinations
    assert (cloud.name, cloud.configured, cloud.waiting_objects, cloud.waiting_bytes) == ("cloud", True, 1, 20)
    assert (cloud.parked_objects, cloud.waiting_stat_objects, cloud.state) == (1, 1, "idle")
    assert (removed.name, removed.configured, removed.waiting_objects) == ("removed", False, 2)
    assert found.unsent == [Unsent(destination="cloud", path="/in/caf\\xe9", reason="not_dicom")]
    assert found.watches[0].troubles == [(str(tmp_path / "in" / "link"), "a link is not followed")]
    assert (found.pid, found.spool_reserve_bytes) == (os.getpid(), 7)
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_a_report_that_is_not_there_or_damaged_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotStoredError):
        read_report(status_path(tmp_path))
    status_path(tmp_path).write_bytes(b"{")
    with pytest.raises(StorageError):
        read_report(status_path(tmp_path))


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    address = f"@fascicle-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0") if abstract else address)
        notify("READY=1", {"NOTIFY_SOCKET": address})
        assert listener.recv(99) == b"READY=1"


def test_no_systemd_is_no_error(tmp_path: Path) -> None:
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})


def test_one_process_a_folder(tmp_path: Path) -> None:
    second = open_lock(tmp_path / "state")
    with open_lock(tmp_path / "state"), pytest.raises(SettingsError, match="in use by another agent"):
        second.__enter__()
    with open_lock(tmp_path / "state"):
        assert (tmp_path / "state" / "lock").exists()


def test_a_folder_that_cannot_be_made_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="cannot be used"), open_lock(tmp_path / "file" / "state"):
        pass
