"""What was finished is found again whole; what was not is never seen; a full disk is said early."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from blake3 import blake3

import agent.spool
from agent.spool import open_spool
from transfer.errors import FullError, SettingsError, StorageError

CHILD = Path(__file__).with_name("spooling_child.py")


async def put(spool: agent.spool.Spool, data: bytes) -> agent.spool.SpooledId:
    incoming = await spool.begin("test")
    await incoming.write(data)
    return await incoming.finish()


async def test_finished_objects_are_found_in_order_of_arrival(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        first, second = await put(spool, b"first"), await put(spool, b"b" * 1_000_000)
        assert spool.path(first.name).read_bytes() == b"first"
        assert second.size_bytes == 1_000_000
        assert await spool.wait_finished() == [first, second]
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        assert await spool.scan() == [first, second]
        third = await put(spool, b"")
        assert await spool.scan() == [first, second, third]
        await spool.remove([first.name, second.name, "gone"])
        assert await spool.scan() == [third]


async def test_a_buffer_may_be_reused(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        incoming, buffer = await spool.begin("test"), bytearray(b"abc")
        await incoming.write(buffer)
        buffer[:] = b"def"
        await incoming.write(memoryview(buffer)[1:])
        assert spool.path((await incoming.finish()).name).read_bytes() == b"abcef"


async def test_abandoned_objects_leave_nothing(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        incoming = await spool.begin("test")
        await incoming.write(b"x" * 1_000_000)
        await incoming.abandon()
        await incoming.abandon()
        assert await spool.scan() == []
        assert list(spool.incoming.iterdir()) == []


async def test_abandon_works_while_cancelled(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        incoming = await spool.begin("test")
        with trio.CancelScope() as scope:
            scope.cancel()
            await incoming.abandon()
        assert list(spool.incoming.iterdir()) == []


async def test_many_at_once(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(put, spool, b"%03d" % number)
        found = await spool.scan()
        assert sorted(spool.path(each.name).read_bytes() for each in found) == [b"%03d" % n for n in range(100)]


async def test_below_the_reserve_nothing_begins(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=1 << 60) as spool:
        with pytest.raises(FullError):
            await spool.begin("test")
        assert list(spool.incoming.iterdir()) == []


async def test_the_reserve_is_checked_while_an_object_arrives(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        incoming = await spool.begin("test")
        spool.reserve_bytes = 1 << 60
        with pytest.raises(FullError):
            for _ in range(9):
                await incoming.write(bytes(1 << 20))
        await incoming.abandon()
        assert list(spool.incoming.iterdir()) == []


async def test_a_failed_flush_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        incoming = await spool.begin("test")
        await incoming.write(b"x")
        os.close(incoming._descriptor)
        incoming._descriptor = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises((FullError, StorageError)):
            await incoming.finish()
        assert await spool.scan() == []
        assert list(spool.incoming.iterdir()) == []


async def test_one_agent_a_spool(tmp_path: Path) -> None:
    async with open_spool(tmp_path, reserve_bytes=0):
        with pytest.raises(SettingsError, match="in use by another agent"):
            async with open_spool(tmp_path, reserve_bytes=0):
                raise AssertionError("the lock did not hold")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root and the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_is_an_error_and_what_was_finished_stays(small_disk: Path) -> None:
    async with open_spool(small_disk, reserve_bytes=0) as spool:
        kept = [await put(spool, os.urandom(1 << 20)) for _ in range(3)]
        incoming = await spool.begin("test")
        with pytest.raises(FullError):
            for _ in range(20):
                await incoming.write(bytes(100_000))
        await incoming.abandon()
        assert await spool.scan() == kept
        await spool.remove(each.name for each in kept)
        assert await spool.scan() == []
        assert (await put(spool, bytes(1 << 20))).size_bytes == 1 << 20


def whole(data: bytes) -> bool:
    return blake3(data[32:]).digest() == data[:32]


def spool_and_kill(folder: Path, seed: int, delay_s: float) -> list[str]:
    """Run the child, kill -9 it `delay_s` after its first finished object; return the names it finished."""
    child = subprocess.Popen([sys.executable, CHILD, folder, str(seed)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    first = child.stdout.readline()
    timer = threading.Timer(delay_s, child.kill)
    timer.start()
    rest = child.stdout.read()
    timer.join()
    assert child.wait() == -9
    child.stdout.close()
    return (first + rest).decode().split()


async def test_kill_9_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    moments, finished = random.Random(2026), set[str]()
    for seed in range(6):
        finished |= set(await trio.to_thread.run_sync(spool_and_kill, tmp_path, seed, moments.random() * 0.3))
    async with open_spool(tmp_path, reserve_bytes=0) as spool:
        assert list(spool.incoming.iterdir()) == []
        found = await spool.scan()
        assert finished <= {each.name for each in found}
        assert all(whole(spool.path(each.name).read_bytes()) for each in found)
