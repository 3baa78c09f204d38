"""The supervisor: its rule as a pure function, and its driver over real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fascicle.supervisor import (
    Again,
    Child,
    Ended,
    Event,
    GiveUp,
    Policy,
    Started,
    decide,
    ending,
    serve_children,
)
from transfer.errors import CrashedError, FascicleError, SettingsError

POLICY = Policy(restarts_max=3, period_s=60, pause_min_s=0.1, pause_max_s=1.0, young_s=5)
SLEEP = "import time; time.sleep(600)"
# Ends on SIGTERM with code 0, and has said so in its log.
POLITE = (
    "import signal, sys; signal.signal(15, lambda *_: (print('bye'), sys.exit(0)));"
    "print('up', flush=True); signal.pause()"
)
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause(); signal.pause()"


def test_the_first_death_is_followed_by_the_shortest_pause() -> None:
    assert decide((), 100.0, POLICY) == Again(0.1, (100.0,))


def test_pauses_double_while_it_dies_young_and_have_a_limit() -> None:
    policy = Policy(restarts_max=9)
    deaths: tuple[float, ...] = ()
    pauses = []
    for now_s in range(8):
        decision = decide(deaths, float(now_s), policy)
        assert isinstance(decision, Again)
        deaths = decision.deaths_s
        pauses.append(decision.pause_s)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]


def test_a_child_that_lived_a_while_is_started_at_once() -> None:
    decision = decide((1.0, 2.0), 20.0, POLICY)
    assert decision == Again(0.1, (1.0, 2.0, 20.0))


def test_more_restarts_than_allowed_are_given_up_and_old_deaths_are_forgotten() -> None:
    assert decide((0.0, 20.0, 40.0), 59.0, POLICY) == GiveUp(3)
    assert decide((0.0, 20.0, 40.0), 61.0, POLICY) == Again(0.1, (20.0, 40.0, 61.0))


@given(lives_s=st.lists(st.floats(0, 30), max_size=200), start_s=st.floats(0, 1e6))
def test_never_more_restarts_in_a_period_than_the_intensity(lives_s: list[float], start_s: float) -> None:
    policy = Policy(restarts_max=5, period_s=10)
    now_s, deaths, restarts = start_s, (), []
    for life_s in lives_s:
        now_s += life_s
        decision = decide(deaths, now_s, policy)
        if isinstance(decision, GiveUp):
            break
        assert policy.pause_min_s <= decision.pause_s <= policy.pause_max_s
        deaths = decision.deaths_s
        restarts.append(now_s)
        now_s += decision.pause_s
    for first, last in zip(restarts, restarts[5:], strict=False):
        assert last - first > policy.period_s


def test_a_child_that_dies_at_once_is_given_up_within_the_period() -> None:
    """The default numbers fit together, even if every start takes 0.8 s."""
    now_s, deaths = 0.0, ()
    while isinstance(decision := decide(deaths, now_s), Again):
        deaths = decision.deaths_s
        now_s += decision.pause_s + 0.8
        assert now_s < 120
    assert decision == GiveUp(30)


def test_endings_in_words() -> None:
    assert (ending(3), ending(-9), ending(-1000)) == ("exit code 3", "SIGKILL", "signal 1000")


class Record:
    """Hears events and lets a test wait for them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = trio.Event()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = trio.Event()

    def starts(self, name: str) -> list[int]:
        return [event.pid for event in self.events if isinstance(event, Started) and event.child.name == name]

    async def wait_starts(self, name: str, count: int) -> int:
        with trio.fail_after(20):
            while len(self.starts(name)) < count:
                await self._changed.wait()
        return self.starts(name)[-1]


def make_child(folder: Path, name: str, code: str, stage: int = 0) -> Child:
    command = (sys.executable, "-c", code)
    return Child(name=name, command=command, stage=stage, log=folder / f"{name}.log", pid_file=folder / f"{name}.pid")


async def wait_log(child: Child, text: str) -> None:
    with trio.fail_after(20):
        while not child.log.exists() or text not in child.log.read_text():
            await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_child_is_started_again_under_a_new_pid(tmp_path: Path) -> None:
    child, record = make_child(tmp_path, "a", SLEEP), Record()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_children, [child], record.tell)
        first = int(child.pid_file.read_text())
        os.kill(first, signal.SIGKILL)
        second = await record.wait_starts("a", 2)
        assert int(child.pid_file.read_text()) == second != first
        nursery.cancel_scope.cancel()
    assert not is_alive(second)
    assert not child.pid_file.exists()
    ended = [event for event in record.events if isinstance(event, Ended)]
    assert [(event.child.name, event.status) for event in ended] == [("a", -9)]


async def test_children_are_asked_to_end_stage_by_stage(tmp_path: Path) -> None:
    say = POLITE.replace("print('bye')", "open('order', 'a').write(sys.argv[0] + '%s ')")
    children = [
        make_child(tmp_path, name, say.replace("open('order'", f"open({str(tmp_path / 'order')!r}") % name, stage)
        for name, stage in (("late", 1), ("early", 0))
    ]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_children, children, Record().tell)
        for child in children:
            await wait_log(child, "up")
        nursery.cancel_scope.cancel()
    assert (tmp_path / "order").read_text().split() == ["-cearly", "-clate"]


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child, record = make_child(tmp_path, "a", STUBBORN), Record()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_children([child], record.tell, stop_s=0.2, task_status=task_status)
        )
        await wait_log(child, "up")
        nursery.cancel_scope.cancel()
    assert not is_alive(record.starts("a")[0])


async def test_a_child_that_keeps_dying_stops_everything(tmp_path: Path) -> None:
    good, bad, record = (
        make_child(tmp_path, "good", SLEEP),
        make_child(tmp_path, "bad", "raise SystemExit(7)"),
        Record(),
    )
    policy = Policy(restarts_max=2, pause_min_s=0.01)
    with pytest.raises(ExceptionGroup) as raised:
        await serve_children([good, bad], record.tell, policy=policy)
    (error,) = leaves(raised.value)
    assert isinstance(error, CrashedError)
    assert error.exit_code == 1
    assert "bad ended again (exit code 7) after 2 restarts" in error.message
    assert len(record.starts("bad")) == 3
    assert not is_alive(record.starts("good")[0])
    assert list(tmp_path.glob("*.pid")) == []


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


async def test_a_command_that_is_not_there_is_a_settings_error(tmp_path: Path) -> None:
    child = Child(name="a", command=("/nonexistent",), stage=0, log=tmp_path / "a.log", pid_file=tmp_path / "a.pid")
    with pytest.raises(ExceptionGroup) as raised:
        await serve_children([child], Record().tell)
    (error,) = leaves(raised.value)
    assert isinstance(error, SettingsError)
    assert isinstance(error, FascicleError)


async def test_what_a_child_prints_is_in_its_log_and_a_large_log_is_set_aside(tmp_path: Path) -> None:
    child = make_child(tmp_path, "a", POLITE)
    with child.log.open("wb") as log:
        log.truncate((16 << 20) + 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_children, [child], Record().tell)
        await wait_log(child, "up")
        nursery.cancel_scope.cancel()
    assert child.log.read_text() == "up\nbye\n"
    assert (tmp_path / "a.log.1").stat().st_size == (16 << 20) + 1


SUPERVISOR = """
import sys, trio
from pathlib import Path
from fascicle.supervisor import Child, Started, serve_children
folder = Path(sys.argv[1])
command = (sys.executable, "-c", sys.argv[2])
child = Child(name="a", command=command, stage=0, log=folder / "a.log", pid_file=folder / "a.pid")
def tell(event):
    print(event.pid, flush=True)
trio.run(serve_children, [child], tell)
"""


async def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """The child ignores SIGTERM, so only the kernel can end it."""
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), STUBBORN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        descriptor = os.pidfd_open(pid)
        await wait_log(make_child(tmp_path, "a", ""), "up")
        supervisor.kill()
    try:
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
