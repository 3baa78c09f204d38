"""The agent's queue and one destination on trio's virtual clock, against a model; the wall clock is set at will.

Whatever the gateway refuses and however often the agent starts again: nothing is done before it was taken, everything
is once the gateway takes it, and tries keep the distance that they must.
"""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import agent.delivery
import agent.queue
from agent.delivery import Destination, Sent
from agent.items import File, Item, NewItem, Priority
from agent.queue import open_queue
from agent.retry import CAP_S, bound_s
from tests.faults.histories.mutants import Replaced, applied
from transfer.errors import StorageError, UnreachableError

DRAW = 0.75  # of every back-off: what is drawn is tested elsewhere
A = "cloud-a"
Step = tuple[str, float]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("gateway"), st.sampled_from([0, 1])),
        st.tuples(st.just("refuse"), st.sampled_from([0, 1])),
        st.tuples(st.just("wait"), st.sampled_from([0.3, 2.0, 30.0, 90.0])),
        st.tuples(st.just("set clock"), st.sampled_from([-(10.0**8), -60.0, 60.0, 10.0**8])),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=25,
)


class World:
    """A gateway that may be away, or refuse single files; the wall clock; and what the model knows."""

    def __init__(self) -> None:
        self.wall_s = 1_800_000_000.0
        self.is_there, self.refuses = True, False
        self.added = 0
        self.taken: set[str] = set()
        self.sent: set[str] = set()  # by this life; one that ends before it notes that sends once more
        self.failures = 0
        self.not_before_s = 0.0

    async def deliver(self, files: AsyncIterator[Item], _: Priority) -> Sequence[Sent]:
        found = [each async for each in files]
        now_s = trio.current_time()
        assert now_s >= self.not_before_s, f"tried {self.not_before_s - now_s} s too early"
        if not self.is_there:
            self.failures += 1
            self.not_before_s = now_s + bound_s(self.failures) * DRAW * 0.99
            raise UnreachableError("away")
        self.failures = 0
        if not self.refuses:
            names = {each.name for each in found}
            assert not self.sent & names, "what was taken was sent again"
            self.sent, self.taken = self.sent | names, self.taken | names
        error = StorageError("no") if self.refuses else None
        return [Sent(each.item_id, "" if error else f"id of {each.name}", error) for each in found]


@contextmanager
def in_place(world: World) -> Iterator[None]:
    """The wall clock of `world`, one draw for all, and no threads, so that the virtual clock knows of all work."""

    async def run_sync(call: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return call(*arguments)

    wall = SimpleNamespace(time=lambda: world.wall_s)
    replaced: list[Replaced] = [
        (agent.delivery, "time", wall),
        (agent.queue, "time", wall),
        (agent.delivery, "random", SimpleNamespace(random=lambda: DRAW)),
        (trio.to_thread, "run_sync", run_sync),
    ]
    with applied(replaced):
        yield


def play(world: World, todo: Sequence[Step], path: Path) -> None:
    """Do the steps, life after life, each with a clock of its own; then let everything go well for a while."""
    rest = list(todo)
    while rest:
        run_life(world, rest, path)
    world.is_there, world.refuses = True, False
    run_life(world, [("wait", 2 * CAP_S)], path)
    assert world.taken == {str(number) for number in range(world.added)}, "what nothing hinders was not sent"


def run_life(world: World, rest: list[Step], path: Path) -> None:
    trio.run(live, world, rest, path, clock=trio.testing.MockClock(autojump_threshold=0))


async def live(world: World, rest: list[Step], path: Path) -> bool:
    """Do steps until a restart; tell whether there are more."""
    world.failures, world.not_before_s, world.sent = (
        0,
        0.0,
        set(),
    )  # a new process knows of no failures of the destination
    async with open_queue(path) as queue, trio.open_nursery() as nursery:
        await queue.hurry()
        nursery.start_soon(Destination(A, queue, world.deliver, lambda _: Path(__file__), lambda: True).serve)
        while rest:
            what, value = rest.pop(0)
            if what == "restart":
                break
            await do(world, queue, what, value)
            known = {item.name for item in await queue.complete(100)}
            assert known <= world.taken, "done before it was taken"
            await queue.let_go(await queue.complete(100), keep=False)
        nursery.cancel_scope.cancel()


async def do(world: World, queue: agent.queue.Queue, what: str, value: float) -> None:
    if what == "add":
        names = [str(world.added + number) for number in range(int(value))]
        world.added += len(names)
        await queue.add([NewItem("/in", File(name.encode(), 1, 1), name, Priority.NORMAL, (A,)) for name in names])
    elif what == "gateway":
        world.is_there = bool(value)
    elif what == "refuse":
        world.refuses = bool(value)
    elif what == "set clock":
        world.wall_s += value
    else:
        world.wall_s += value
        await trio.sleep(value)


def try_steps(todo: Sequence[Step]) -> None:
    world = World()
    with tempfile.TemporaryDirectory() as folder, in_place(world):
        play(world, todo, Path(folder) / "queue.db")


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_everything_is_delivered_whatever_the_clocks_say(todo: list[Step]) -> None:
    try_steps(todo)


class _ByTheWall:
    """trio, with the wall clock for its own."""

    def __getattr__(self, name: str) -> Any:
        return (lambda: agent.delivery.time.time()) if name == "current_time" else getattr(trio, name)


async def _nothing(*_: object) -> None:
    """Do nothing."""


MUTANTS: dict[str, list[Replaced]] = {
    "waits are counted by the wall clock": [
        (agent.delivery, "trio", _ByTheWall()),
        (agent.queue.Queue, "hurry", _nothing),
    ],
    "what waits is not hurried at the start": [(agent.queue.Queue, "hurry", _nothing)],
    "no back-off": [(agent.delivery, "back_off_s", lambda *_, **__: 0.001)],
    "back-off that does not grow": [(agent.delivery, "back_off_s", lambda *_, **__: DRAW)],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_notices_a_mistake(mutant: str) -> None:
    @settings(
        deadline=None, max_examples=200, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(steps)
    def search(todo: list[Step]) -> None:
        try_steps(todo)

    with applied(MUTANTS[mutant]), pytest.raises((AssertionError, BaseExceptionGroup)) as found:
        search()
    assert _causes(found.value)


def _causes(error: BaseException) -> list[AssertionError]:
    """Return the broken promises in a group of errors."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for each in error.exceptions for cause in _causes(each)]
    return [error] if isinstance(error, AssertionError) else []
