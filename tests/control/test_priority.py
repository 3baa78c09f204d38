"""Who goes first: within a process by a gate, between a user's processes by locks, on a slow link by small shares."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from transfer.control.gate import Gate
from transfer.control.presence import LOOK_S, announce, more_urgent, serve_presence
from transfer.control.priority import Priority, may_go
from transfer.control.shares import SHARE_BYTES, SHARE_BYTES_MAX, SHARE_BYTES_MIN, next_share_bytes
from transfer.inspection import SourceFile
from transfer.work import Item, Work

STAT, ROUTINE, BACKGROUND = Priority.STAT, Priority.ROUTINE, Priority.BACKGROUND
URL = "https://gateway:8443"


class Transfer:
    paused = False

    def pause(self, paused: bool) -> None:
        self.paused = paused


@pytest.mark.parametrize(
    ("mine", "present", "expected"),
    [
        (STAT, {STAT, ROUTINE, BACKGROUND}, True),
        (ROUTINE, {ROUTINE, BACKGROUND}, True),
        (ROUTINE, {STAT, ROUTINE}, False),
        (BACKGROUND, {ROUTINE, BACKGROUND}, False),
        (BACKGROUND, set(), True),
    ],
)
def test_who_may_go(mine: Priority, present: set[Priority], expected: bool) -> None:
    assert may_go(mine, present) is expected


def test_a_file_system_without_locks_ends_no_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with announce(tmp_path, URL, STAT):
        assert len(list(tmp_path.iterdir())) == 1
        assert more_urgent(tmp_path, URL, ROUTINE) == set()


def test_a_gate_pauses_the_less_urgent_until_the_more_urgent_have_gone() -> None:
    gate, stat, routine, background = Gate(), Transfer(), Transfer(), Transfer()
    with gate.enter(BACKGROUND, background), gate.enter(ROUTINE, routine):
        assert (background.paused, routine.paused) == (True, False)
        with gate.enter(STAT, stat):
            assert (background.paused, routine.paused, stat.paused) == (True, True, False)
        assert (background.paused, routine.paused) == (True, False)
        gate.outside({STAT})
        assert (background.paused, routine.paused) == (True, True)
        gate.outside(())
    with gate.enter(BACKGROUND, background):
        assert background.paused is False


def test_a_transfer_that_fails_leaves_the_gate() -> None:
    gate, routine = Gate(), Transfer()
    with gate.enter(ROUTINE, routine):
        with contextlib.suppress(ZeroDivisionError), gate.enter(STAT, Transfer()):  # the transfer's own failure
            raise ZeroDivisionError
        assert routine.paused is False


async def test_paused_work_is_given_out_when_it_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    work, taken = Work(), []
    item = Item("id", 1, [SourceFile(Path("x"), "x", 1)], b"x")

    async def take() -> None:
        await work.wait_turn()
        taken.append((await work.take("node"), trio.current_time() - start_s))

    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        work.pause(True)
        work.add(item)
        nursery.start_soon(take)
        await trio.sleep(5)
        work.pause(False)
    assert taken == [(item, 5.0)]


async def test_work_that_is_settled_while_paused_ends_its_flows() -> None:
    work = Work()
    work.pause(True)
    work.no_more()
    with trio.fail_after(5):
        await work.wait_turn()
        assert await work.take("node") is None


def test_a_running_transfer_shows_to_the_less_urgent(tmp_path: Path) -> None:
    folder = tmp_path / "running"
    assert more_urgent(folder, URL, BACKGROUND) == set()
    with announce(folder, URL, STAT), announce(folder, URL, ROUTINE), announce(folder, URL, ROUTINE):
        assert more_urgent(folder, URL, BACKGROUND) == {STAT, ROUTINE}
        assert more_urgent(folder, URL, ROUTINE) == {STAT}
        assert more_urgent(folder, URL, STAT) == set()
        assert more_urgent(folder, "https://another:8443", BACKGROUND) == set()
    assert more_urgent(folder, URL, BACKGROUND) == set()
    assert {found.parent for found in folder.iterdir()} == {folder}


def test_a_dead_process_is_not_waited_for(tmp_path: Path) -> None:
    with announce(tmp_path, URL, STAT):
        pass
    (lock,) = tmp_path.iterdir()
    program = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_SH); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert more_urgent(tmp_path, URL, ROUTINE) == {STAT}
        other.kill()
        other.wait()
    assert more_urgent(tmp_path, URL, ROUTINE) == set()


def test_a_folder_that_cannot_be_used_hides_a_transfer_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with announce(tmp_path / "file" / "running", URL, STAT):
        assert more_urgent(tmp_path / "file" / "running", URL, ROUTINE) == set()


async def test_a_gate_hears_of_other_processes(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    gate, routine = Gate(), Transfer()
    with gate.enter(ROUTINE, routine):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_presence, gate, tmp_path, URL, ROUTINE)
            with announce(tmp_path, URL, STAT):
                await trio.sleep(2 * LOOK_S)
                assert routine.paused is True
            await trio.sleep(2 * LOOK_S)
            assert routine.paused is False
            (held,) = [found for found in tmp_path.iterdir() if "routine" in found.name]
            descriptor = os.open(held, os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
            nursery.cancel_scope.cancel()


def test_shares_follow_the_rate() -> None:
    share, bytes_s = SHARE_BYTES, 0.0625e6  # 2 Mb/s by four flows
    for _ in range(3):
        share = next_share_bytes(share, share, share / bytes_s)
    assert share == SHARE_BYTES_MIN
    for _ in range(10):
        share = next_share_bytes(share, share, share / 100e6)
    assert share == SHARE_BYTES_MAX
    assert next_share_bytes(share, share, share / 3e6) == 512 << 10


@given(st.sampled_from([1 << bits for bits in range(14, 21)]), st.integers(0, 1 << 20), st.floats(0, 1e3))
def test_a_share_is_always_a_bounded_power_of_two(share: int, sent_bytes: int, took_s: float) -> None:
    following = next_share_bytes(share, min(sent_bytes, share), took_s)
    assert SHARE_BYTES_MIN <= following <= SHARE_BYTES_MAX
    assert following.bit_count() == 1
    assert following <= 2 * share
