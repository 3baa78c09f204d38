"""The common work: stolen in order, given back to the front, over when everything is settled; and its memory."""

import random

import trio
import trio.testing

from transfer.errors import FullError
from transfer.work import LAST_COUNT, Budget, Item, Work


def item(number: int) -> Item:
    return Item(f"{number:064x}", 10, [], None)


def filled(count: int) -> tuple[Work, list[Item]]:
    work, items = Work(), [item(number) for number in range(count)]
    for one in items:
        work.add(one)
    return work, items


def test_objects_are_taken_in_the_order_in_which_they_came() -> None:
    work, items = filled(5)
    assert [work.take_nowait("ab"[number % 2]) for number in range(6)] == [*items, None]


def test_what_is_given_back_goes_first() -> None:
    work, items = filled(3)
    first = work.take_nowait("a")
    second = work.take_nowait("a")
    assert first is not None
    work.give_back(first)
    assert [work.take_nowait("b") for _ in range(3)] == [first, items[2], None]
    assert second is items[1]


def test_what_all_nodes_have_refused_is_for_nobody() -> None:
    work, items = filled(3)
    items[0].refused_by.update(a=FullError("full"))
    items[2].refused_by.update(a=FullError("full"), b=FullError("full"))
    assert work.refusing({"a", "b"}) == set()
    assert work.take_refused({"a", "b"}) == [items[2]]
    assert [work.take_nowait("a"), work.refusing({"a", "b"})] == [items[1], {"a"}]
    assert work.take_refused({"a"}) == [items[0]]
    assert work.refusing({"a", "b"}) == set()


def test_what_a_node_has_a_part_of_is_left_to_it_while_a_flow_there_is_expected() -> None:
    work, items = filled(2)
    items[0].home = "a"
    expected = {"a"}
    work.is_expected = expected.__contains__
    assert work.homes() == {"a"}
    assert [work.take_nowait("b"), work.take_nowait("b"), work.take_nowait("a")] == [items[1], None, items[0]]
    for end in (lambda: expected.clear(), lambda: items[0].refused_by.update(a=FullError("full"))):
        expected.add("a")
        work.give_back(items[0])
        assert work.take_nowait("b") is None
        end()
        assert work.take_nowait("b") is items[0]


def test_a_part_that_an_earlier_sender_left_draws_a_flow_to_its_node_and_goes_on_there() -> None:
    work = Work()
    work.remembered = {item(0).object_id: "b", item(9).object_id: "c"}
    work.is_expected = {"a", "b"}.__contains__
    assert work.homes() == {"b", "c"}
    work.add(item(0))
    work.add(item(1))
    assert [one and one.object_id for one in (work.take_nowait("a"), work.take_nowait("a"), work.take_nowait("b"))] == [
        item(1).object_id,
        None,
        item(0).object_id,
    ]
    assert work.homes() == {"c"}


def test_a_node_gets_nothing_that_it_refused_and_another_does() -> None:
    work, items = filled(3)
    items[0].refused_by["a"] = items[2].refused_by["a"] = FullError("full")
    assert [work.take_nowait("a") for _ in range(2)] == [items[1], None]
    assert [work.take_nowait("b") for _ in range(3)] == [items[0], items[2], None]


async def test_take_waits_for_work_and_ends_when_all_is_settled(nursery) -> None:
    work = Work()
    taken: list[Item | None] = []

    async def flow(node_id: str) -> None:
        while (one := await work.take(node_id)) is not None:
            taken.append(one)
        taken.append(None)

    nursery.start_soon(flow, "a")
    nursery.start_soon(flow, "b")
    await trio.testing.wait_all_tasks_blocked()
    assert taken == []
    work.add(one := item(1))
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [one]
    work.no_more()
    work.give_back(one)
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [one, one]
    assert not work.settled.is_set()
    work.settle()
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [one, one, None, None]
    assert work.settled.is_set()


async def test_a_transfer_of_nothing_is_settled_at_once() -> None:
    work = Work()
    assert not work.settled.is_set()
    work.no_more()
    assert await work.take("a") is None


def test_settled_needs_both_everything_settled_and_nothing_more_to_come() -> None:
    work, _ = filled(2)
    work.settle()
    work.settle()
    assert not work.settled.is_set()
    work.no_more()
    assert work.settled.is_set()


def test_idle_is_when_everything_that_was_added_is_settled() -> None:
    work, _ = filled(1)
    assert (Work().idle, work.idle) == (True, False)
    assert work.take_nowait("a") is not None
    assert not work.idle
    work.settle()
    assert work.idle


async def test_any_number_of_flows_that_break_lose_nothing_and_take_nothing_twice() -> None:
    chance = random.Random(5)
    work, items = filled(200)
    work.no_more()
    stored: list[Item] = []

    async def flow(node_id: str) -> None:
        while (one := await work.take(node_id)) is not None:
            await trio.lowlevel.checkpoint()
            if chance.random() < 0.4:
                work.give_back(one)
            else:
                stored.append(one)
                work.settle()

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(flow, f"node-{number}")
    assert sorted(one.object_id for one in stored) == [one.object_id for one in items]


async def test_the_budget_makes_wait_until_there_is_room(nursery) -> None:
    budget = Budget(100)
    got: list[int] = []

    async def take(size_bytes: int) -> None:
        await budget.take(size_bytes)
        got.append(size_bytes)

    await budget.take(60)
    nursery.start_soon(take, 41)
    await trio.testing.wait_all_tasks_blocked()
    assert got == []
    nursery.start_soon(take, 40)
    await trio.testing.wait_all_tasks_blocked()
    assert got == [40]
    budget.give_back(60)
    await trio.testing.wait_all_tasks_blocked()
    assert got == [40, 41]


async def test_what_is_larger_than_the_budget_goes_alone(nursery) -> None:
    budget = Budget(100)
    await budget.take(1000)
    done = trio.Event()

    async def take() -> None:
        await budget.take(1)
        done.set()

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    budget.give_back(1000)
    await done.wait()


async def test_a_budget_is_small_until_it_is_widened(nursery) -> None:
    budget = Budget(100, first_bytes=20)
    await budget.take(20)
    done = trio.Event()

    async def take() -> None:
        await budget.take(80)
        done.set()

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    budget.widen()
    await done.wait()
    nursery.start_soon(budget.take, 1)
    await trio.testing.wait_all_tasks_blocked()
    budget.widen()  # again: no wider than it is
    await trio.testing.wait_all_tasks_blocked()
    assert budget._used_bytes == 100
    budget.give_back(1)


async def test_work_is_ending_when_few_objects_wait_and_no_more_come(nursery) -> None:
    work = Work()
    for number in range(LAST_COUNT + 1):
        work.add(item(number))
    exhausted: list[bool] = []

    async def wait() -> None:
        await work.wait_ending()
        exhausted.append(work.is_exhausted)

    nursery.start_soon(wait)
    work.no_more()
    await trio.testing.wait_all_tasks_blocked()
    assert exhausted == []  # more wait than are few
    assert work.take_nowait("a") is not None
    await trio.testing.wait_all_tasks_blocked()
    assert exhausted == [False]


async def test_work_is_not_ending_while_more_may_come(nursery) -> None:
    work = Work()
    work.add(item(1))
    ended = trio.Event()

    async def wait() -> None:
        await work.wait_ending()
        ended.set()

    nursery.start_soon(wait)
    assert work.take_nowait("a") is not None
    await trio.testing.wait_all_tasks_blocked()
    assert not ended.is_set()
    assert not work.is_exhausted
    work.no_more()
    await ended.wait()
    assert work.is_exhausted


async def test_what_must_move_on_takes_without_waiting(nursery) -> None:
    budget = Budget(100)
    await budget.take(100)
    budget.take_over_limit(50)
    budget.give_back(100)
    with trio.fail_after(5):
        await budget.take(50)
    nursery.start_soon(budget.take, 1)
    await trio.testing.wait_all_tasks_blocked()
    budget.give_back(50)


async def test_a_plain_object_goes_as_it_is_only_when_its_encoder_was_waited_for_in_vain(autojump_clock) -> None:
    work = Work()
    work.add(one := item(1), plain=True)
    started_s = trio.current_time()
    assert work.take_nowait("a") is None
    assert await work.take("a", patience_s=lambda size_bytes: size_bytes / 100) is one
    assert trio.current_time() - started_s == 0.1


async def test_what_an_encoder_gives_back_goes_before_what_is_plain(nursery, autojump_clock) -> None:
    work = Work()
    first, second = item(1), item(2)
    work.add(first, plain=True)
    work.add(second, plain=True)
    assert await work.take_plain(size_bytes_max=10, count_max=9) == [first]
    taken: list[Item | None] = []

    async def flow() -> None:
        taken.append(await work.take("a", patience_s=lambda _: 5.0))

    nursery.start_soon(flow)
    await trio.sleep(1)
    assert taken == []
    work.add_ready(first)
    await trio.sleep(1)
    assert taken == [first]


async def test_encoders_take_small_objects_together_and_one_that_is_too_large_alone() -> None:
    work = Work()
    items = [item(number) for number in range(5)]
    for one in items:
        work.add(one, plain=True)
    assert await work.take_plain(size_bytes_max=35, count_max=9) == items[:3]
    assert await work.take_plain(size_bytes_max=5, count_max=9) == items[3:4]
    assert not work.is_empty
    assert await work.take_plain(size_bytes_max=35, count_max=1) == items[4:]
    assert work.is_empty


async def test_a_flow_that_is_leaving_takes_nothing_more(nursery) -> None:
    work, leaving, taken = Work(), [False], []

    async def flow() -> None:
        taken.append(await work.take("a", lambda: leaving[0]))

    nursery.start_soon(flow)
    await trio.testing.wait_all_tasks_blocked()
    leaving[0] = True
    work.wake()
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [None]


async def waiting(work: Work, count: int, nursery: trio.Nursery, taken: list[Item | None]) -> list[trio.CancelScope]:
    """Start flows that wait while encoders have what is there."""
    scopes = [trio.CancelScope() for _ in range(count)]

    async def flow(scope: trio.CancelScope) -> None:
        with scope:
            taken.append(await work.take("a", patience_s=lambda _: 9.0))

    for scope in scopes:
        nursery.start_soon(flow, scope)
        await trio.testing.wait_all_tasks_blocked()
    return scopes


async def test_an_object_wakes_one_flow(nursery) -> None:
    work, taken = Work(), []
    for number in range(2):
        work.add(item(number), plain=True)
    encoded = await work.take_plain(size_bytes_max=99, count_max=9)
    scopes = await waiting(work, 3, nursery, taken)
    for number, one in enumerate(encoded):
        work.add_ready(one)
        assert sum(taker.woken.is_set() for taker in work._takers) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert taken == encoded[: number + 1]
    work.settle()
    work.settle()
    work.no_more()
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [*encoded, None]
    assert not any(scope.cancelled_caught for scope in scopes)


async def test_a_flow_that_is_cancelled_as_it_is_woken_leaves_the_object_to_another(nursery) -> None:
    work, taken = Work(), []
    work.add(item(1), plain=True)
    [one] = await work.take_plain(size_bytes_max=99, count_max=9)
    first, _ = await waiting(work, 2, nursery, taken)
    first.cancel()
    work.add_ready(one)
    assert [taker.woken.is_set() for taker in work._takers] == [True, False]
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [one]
    nursery.cancel_scope.cancel()


async def test_a_flow_that_leaves_as_it_is_woken_leaves_the_object_to_another(nursery) -> None:
    work, taken, leaving = Work(), [], []
    work.add(item(1), plain=True)
    [one] = await work.take_plain(size_bytes_max=99, count_max=9)

    async def leaver() -> None:
        assert await work.take("a", leaving=lambda: bool(leaving)) is None

    nursery.start_soon(leaver)
    await trio.testing.wait_all_tasks_blocked()
    await waiting(work, 1, nursery, taken)
    leaving.append(True)
    work.add_ready(one)
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [one]


async def test_who_waits_until_little_is_left_is_not_woken_before(nursery) -> None:
    work, low = Work(), []
    for number in range(5):
        work.add(item(number))

    async def wait() -> None:
        await work.wait_low(2)
        low.append(True)

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    [watcher] = work._watchers
    for left in (4, 3, 2):
        assert not watcher.woken.is_set()
        assert work.take_nowait("a") is not None
        assert len(work._ready) == left
    assert watcher.woken.is_set()
    await trio.testing.wait_all_tasks_blocked()
    assert low == [True]
