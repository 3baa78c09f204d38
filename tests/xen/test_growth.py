"""Growth, as a pure function: too little room and everybody there -> as many as suffice, at most so many; else none."""

from collections.abc import Callable
from fractions import Fraction

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.xen.imagined import Imagined, hosts, wanted
from xen.cloud import Node
from xen.growth import Outcome, Verdict, judge, more_nodes, room_of
from xen.observed import GIB, Machine, Power, Stage
from xen.plan import make_plan

MOST = 40
GOING = (Stage.CONDEMNED, Stage.RAW)


def pool_of(count: int, *, free: int, total: int = 100, host_count: int = 3, memory: int = 64 * GIB) -> Imagined:
    """Return nodes that all serve, each with `free` of `total` bytes."""
    state = Imagined(hosts=hosts(host_count, memory))
    for _ in state.carry_out(make_plan(wanted(count=count), state.pool(), {})):
        pass
    for name in state.nodes:
        fill(state, name, free, total)
    return state


def fill(state: Imagined, name: str, free: int, total: int = 100) -> None:
    state.nodes[name] = msgspec.structs.replace(state.nodes[name], free_bytes=free, total_bytes=total)


def change(imagined: Imagined, name: str, **values: object) -> None:
    imagined.nodes[name] = msgspec.structs.replace(imagined.nodes[name], **values)


def verdict(state: Imagined, count: int = 4, *, most: int = MOST, share: float = 0.15, **more: object) -> Verdict:
    return judge(wanted(count=count, **more), state.pool(), state.nodes, count_max=most, free_share_min=share)


@pytest.mark.parametrize(
    ("free", "share", "expected"),
    [
        (100, 0.15, 4),  # all of it is free
        (15, 0.15, 4),  # as much as is wanted
        (14, 0.15, 5),  # 56 of 400 and 100 of 100 more: 156 of 500
        (0, 0.15, 5),  # 100 of 500
        (0, 0.20, 5),  # just so
        (0, 0.21, 6),  # 200 of 600
        (0, 0.5, 8),
        (0, 0.75, 16),
        (50, 0.75, 8),  # 200 of 400 and 400 of 400 more: 600 of 800
        (0, 0.95, MOST),  # 80 would be needed
    ],
)
def test_so_many_come_at_once_that_they_suffice(free: int, share: float, expected: int) -> None:
    found = verdict(pool_of(4, free=free), share=share)
    assert (found.count, found.outcome) == (expected, Outcome.GROWN if expected > 4 else Outcome.ENOUGH)
    assert found.line == (
        f"less than {share * 100:g} % of the nodes' room is free: {expected} nodes are wanted, not 4"
        if expected > 4
        else ""
    )


def serve_not(state: Imagined, name: str, **values: object) -> None:
    change(state, name, state="silent", silent_s=3.0)
    state.change(name, **values)


def drain(state: Imagined) -> None:
    change(state, "node-04", draining=True, free_bytes=100)
    state.change("node-04", stage=Stage.LEAVING)


def double(state: Imagined) -> None:
    state.machines["again"] = msgspec.structs.replace(state.one("node-02"), machine_id="again")


def host_dies(state: Imagined) -> None:
    state.kill_host(state.one("node-03").host_id, silent_s=700.0)


def foreign(state: Imagined) -> None:
    machine = state.machines.pop(state.one("node-04").machine_id)
    state.machines["other"] = msgspec.structs.replace(machine, name="other-04")


WAIT: list[tuple[Callable[[Imagined], None], Outcome, str]] = [
    (lambda state: state.change("node-02", stage=Stage.CLONED, power=Power.HALTED), Outcome.COMING, ""),
    (lambda state: serve_not(state, "node-02", stage=Stage.BEGUN), Outcome.COMING, ""),
    (lambda state: state.destroy(state.one("node-02").machine_id), Outcome.COMING, ""),
    (drain, Outcome.COMING, ""),
    (double, Outcome.COMING, ""),
    (foreign, Outcome.COMING, ""),
    (lambda state: serve_not(state, "node-02"), Outcome.HELD, "it lacks node-02"),
    (lambda state: change(state, "node-02", state="unknown"), Outcome.HELD, "it lacks node-02"),
    (host_dies, Outcome.HELD, "it lacks node-03"),
    (lambda state: state.nodes.pop("node-02"), Outcome.HELD, "it lacks node-02"),
]


@pytest.mark.parametrize(("happens", "outcome", "said"), WAIT)
def test_nothing_is_added_before_all_that_are_wanted_serve(
    happens: Callable[[Imagined], None], outcome: Outcome, said: str
) -> None:
    state = pool_of(4, free=1)
    happens(state)
    found = verdict(state)
    assert (found.count, found.outcome) == (4, outcome)
    assert said in found.line
    assert bool(said) == bool(found.line)


def test_more_than_are_wanted_are_on_their_way_out_first() -> None:
    assert verdict(pool_of(6, free=1)).outcome == Outcome.COMING


@pytest.mark.parametrize(("count", "outcome"), [(4, Outcome.UNKNOWN), (0, Outcome.UNKNOWN)])
def test_room_that_nobody_told_of_is_not_full(count: int, outcome: Outcome) -> None:
    state = pool_of(count, free=0, total=0)
    assert verdict(state, count).outcome == outcome
    assert room_of(wanted(count=count), state.pool(), state.nodes).free_ratio is None


def test_room_counts_of_those_alone_that_take_objects() -> None:
    state = pool_of(4, free=10)
    change(state, "node-01", free_bytes=90, draining=True)  # by the gateway's own command: its machine stays
    change(state, "node-02", free_bytes=0, total_bytes=0)
    fill(state, "node-03", 20)
    room = room_of(wanted(count=4), state.pool(), state.nodes)
    assert (room.nodes, room.free_bytes, room.total_bytes, room.free_ratio) == (2, 30, 200, 0.15)
    assert verdict(state).outcome == Outcome.ENOUGH
    fill(state, "node-03", 19)
    assert verdict(state).count == 5


def test_at_the_maximum_somebody_is_told() -> None:
    found = verdict(pool_of(4, free=1), most=4)
    assert (found.count, found.outcome) == (4, Outcome.MAXIMUM)
    assert found.line == (
        "less than 15 % of the nodes' room is free, "
        "and there are 4 nodes, as many as `growth.count_max` allows; raise it"
    )


def test_without_a_maximum_it_never_grows() -> None:
    assert verdict(pool_of(4, free=0), most=0) == Verdict(outcome=Outcome.OFF, count=4)


def test_the_hosts_are_full_and_that_is_said_by_how_much() -> None:
    state = pool_of(4, free=1, host_count=1, memory=5 * GIB)
    found = verdict(state)
    assert (found.count, found.outcome) == (4, Outcome.NO_ROOM)
    assert "none is added: 1 machine more than now: 1.0 GiB of memory on the hosts are missing" in found.line
    assert found.line.endswith("Nothing was done")


def test_as_many_as_the_hosts_take() -> None:
    state = pool_of(4, free=0, host_count=1, memory=7 * GIB)
    found = verdict(state, share=0.5)
    assert (found.count, found.outcome) == (6, Outcome.GROWN)
    assert found.short.startswith("4 machines more than now: 2.0 GiB of memory on the hosts are missing")
    assert found.short.endswith("What fits is done")
    state.room = 4 * 3 * GIB + 5 * GIB
    found = verdict(state, share=0.5)
    assert (found.count, found.outcome) == (5, Outcome.GROWN)
    assert "GiB of room on shared are missing" in found.short


def test_larger_disks_are_counted_as_what_they_bring() -> None:
    state = pool_of(30, free=0, total=2 * GIB)  # of 3 GiB each: image and reserve have the rest
    assert verdict(state, 30).count == 36
    assert verdict(state, 30, disk_bytes=30 * GIB).count == 31
    state = pool_of(30, free=0, total=20 * GIB)
    for each in list(state.machines.values()):
        state.change(each.name, disk_bytes=30 * GIB)
    assert verdict(state, 30).count == 36  # a smaller disk brings less, and the next look asks for the rest


@given(
    free=st.integers(0, 1 << 50),
    used=st.integers(0, 1 << 50),
    each=st.integers(1, 1 << 45),
    share=st.floats(0.001, 0.999),
)
def test_the_fewest_that_suffice(free: int, used: int, each: int, share: float) -> None:
    total = free + used
    more = more_nodes(free, total, Fraction(each), share)

    def suffices(nodes: int) -> bool:
        return free + nodes * each >= Fraction(repr(share)) * (total + nodes * each)

    assert suffices(more)
    assert more == 0 or not suffices(more - 1)


@pytest.mark.parametrize(("used", "expected"), [(84, 10), (86, 12), (100, 17)])
def test_copies_that_are_moved_to_new_nodes_and_kept_for_a_week_at_the_old_ones_end_it_too(
    used: int, expected: int
) -> None:
    """Ten nodes of 100: until what balance moved is deleted it lies at both places, and the share is less by it."""
    count, free = 10, 10 * (100 - used)
    while more := more_nodes(free, count * 100, Fraction(100), 0.15):
        count += more
        free = count * 100 - 10 * used - (count - 10) * 10 * used // count
    assert count == expected


MISHAPS = st.lists(
    st.tuples(
        st.integers(1, 8),
        st.sampled_from(["begun", "cloned", "leaving", "condemned", "raw", "silent", "unknown", "absent", "draining"]),
    ),
    max_size=2,
)
STAGES = {each.value: each for each in Stage}


@settings(max_examples=300)
@given(
    rooms=st.lists(st.tuples(st.integers(0, 60), st.sampled_from([60, 60, 60, 90, 0])), min_size=1, max_size=8),
    mishaps=MISHAPS,
    off=st.sampled_from([0, 0, 0, 0, 1, -1]),
    spare=st.integers(0, 9),
    share=st.sampled_from([0.05, 0.15, 0.5, 0.9]),
)
def test_whatever_is_seen(
    rooms: list[tuple[int, int]], mishaps: list[tuple[int, str]], off: int, spare: int, share: float
) -> None:
    """Never more than may be, never fewer than are wanted, never more before all serve; and what is added suffices."""
    state = Imagined()
    happened = dict(mishaps)
    for number, (free, total) in enumerate(rooms, 1):
        name, mishap = f"node-{number:02}", happened.get(number, "")
        stage = STAGES.get(mishap, Stage.SERVING)
        state.machines[name] = Machine(
            name=name,
            number=number,
            machine_id=name,
            stage=stage,
            power=Power.RUNNING if stage in (Stage.SERVING, Stage.LEAVING, Stage.BEGUN) else Power.HALTED,
            host_id="h1",
            storage_id="s1",
            memory_bytes=GIB,
            disk_bytes=3 * GIB,
        )
        if mishap != "absent":
            how = mishap if mishap in ("silent", "unknown") else "live"
            room = {"free_bytes": min(free, total), "total_bytes": total}
            state.nodes[name] = Node(name=name, state=how, draining=mishap in ("draining", "leaving"), **room)
    standing = [each for each in state.machines.values() if each.stage not in (Stage.LEAVING, *GOING)]
    count = max(0, len(standing) + off)
    found = verdict(state, count, most=count + spare, share=share)
    event(found.outcome)
    assert count <= found.count <= count + spare
    assert (found.count > count) == (found.outcome == Outcome.GROWN)
    if found.count > count:
        assert len(standing) == count
        assert {(each.stage, state.nodes[each.name].state) for each in standing} == {(Stage.SERVING, "live")}
        takers = [state.nodes[each.name] for each in standing if not state.nodes[each.name].draining]
        known = [each for each in takers if each.total_bytes]
        free, total = sum(each.free_bytes for each in known), sum(each.total_bytes for each in known)
        assert free < Fraction(repr(share)) * total
        more = Fraction(total, len(known)) * (found.count - count)
        assert free + more >= Fraction(repr(share)) * (total + more) or found.count == count + spare
