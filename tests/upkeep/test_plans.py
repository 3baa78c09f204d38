"""Which copies go and which move: never the last ones, never into one failure domain, and there is an end."""

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.balance import jobs
from gateway.balanceplan import Move, plan_moves
from gateway.extraplan import Held, choose
from gateway.fill import Fill, spread
from gateway.repairplan import JOB_OBJECTS
from gateway.trashplan import Facts, judge
from transfer.protocol.messages import Discarded

MIB = 1 << 20
NAMES = ["node-1", "node-2", "node-3", "node-4", "node-5", "node-6"]


def fill(name: str, used: int, *, whole: int = 1000 * MIB, domain: str = "") -> Fill:
    return Fill(name, domain or name, used, whole - used)


def held(number: int, *holders: str, size: int = MIB, wished: int = 0) -> Held:
    return Held(number.to_bytes(32, "big"), size, frozenset(holders), wished or len(holders))


def test_the_copy_on_the_fullest_node_goes_and_the_others_are_named() -> None:
    fills = [fill("node-1", 100), fill("node-2", 900), fill("node-3", 500)]
    (drop,) = choose([held(1, "node-1", "node-2", "node-3", wished=2)], fills)
    assert (drop.node_id, drop.keepers) == ("node-2", {"node-1", "node-3"})


def test_copies_that_share_a_failure_domain_go_first() -> None:
    fills = [fill("node-1", 900), fill("node-2", 100, domain="rack"), fill("node-3", 200, domain="rack")]
    (drop,) = choose([held(1, "node-1", "node-2", "node-3", wished=2)], fills)
    assert (drop.node_id, drop.keepers) == ("node-3", {"node-1", "node-2"})


def test_copies_on_nodes_of_which_nothing_is_known_keep_nothing_and_do_not_go() -> None:
    fills = [fill("node-1", 100), fill("node-2", 900)]
    assert choose([held(1, "node-1", "node-2", "node-3", wished=2)], fills) == []
    assert choose([held(1, "node-3", "node-4", "node-5", wished=1)], fills) == []


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Fill], list[Held]]:
    """Nodes of unlike size in some failure domains, and objects on them; the fill is what the objects make it."""
    names = NAMES[: draw(st.integers(2, 6))]
    domains = {name: draw(st.sampled_from([name, "rack-1", "rack-2"])) for name in names}
    objects = []
    for number in range(draw(st.integers(0, 40))):
        holders = draw(st.sets(st.sampled_from(names), min_size=1, max_size=3))
        objects.append(held(number, *sorted(holders), size=draw(st.integers(0, 8 * MIB))))
    used = Counter[str]()
    for one in objects:
        used.update(dict.fromkeys(one.holders, one.stored_bytes))
    wholes = {name: used[name] + draw(st.integers(0, 500 * MIB)) + 1 for name in names}
    return [fill(name, used[name], whole=wholes[name], domain=domains[name]) for name in names], objects


def applied(objects: list[Held], moves: list[Move]) -> list[Held]:
    """Return the objects after each was copied and the old copy put aside."""
    by_id = {move.object_id: move for move in moves}
    found = []
    for one in objects:
        move = by_id.get(one.object_id)
        if move is not None:
            assert move.source in one.holders
            assert move.target not in one.holders
            one = msgspec.structs.replace(one, holders=one.holders - {move.source} | {move.target})
        found.append(one)
    return found


@given(clusters(), st.floats(0.001, 0.5), st.integers(1, 64 * MIB))
def test_moves_come_to_an_end_and_make_nothing_worse(
    cluster: tuple[list[Fill], list[Held]], least: float, budget: int
) -> None:
    fills, objects = cluster
    domains = {one.node_id: one.failure_domain for one in fills}
    wished = {one.object_id: one.wished for one in objects}
    differ = spread(fills)
    for _ in range(10_000):
        planned = plan_moves(objects, fills, least_spread=least, budget_bytes=budget)
        if not planned.moves:
            break
        before = {one.object_id: [domains[node] for node in one.holders] for one in objects}
        objects = applied(objects, planned.moves)
        for one in objects:
            assert len(one.holders) == wished[one.object_id]
            mine = [domains[node] for node in one.holders]
            assert len(set(mine)) >= len(set(before[one.object_id])), "no failure domain is lost"
        used = Counter[str]()
        for one in objects:
            used.update(dict.fromkeys(one.holders, one.stored_bytes))
        assert {one.node_id: one.used_bytes for one in planned.fills} == {name: used[name] for name in domains}
        assert spread(planned.fills) <= differ + 1e-12
        fills, differ = planned.fills, spread(planned.fills)
    else:
        raise AssertionError("no end")


def test_a_node_that_is_added_gets_its_share() -> None:
    """Two full nodes, three replicas of nothing; after the moves no two nodes differ by more than was asked."""
    objects = [held(number, "node-1", "node-2") for number in range(300)]
    fills = [fill("node-1", 300 * MIB), fill("node-2", 300 * MIB), fill("node-3", 0)]
    for _ in range(50):
        planned = plan_moves(objects, fills, least_spread=0.02, budget_bytes=50 * MIB)
        objects, fills = applied(objects, planned.moves), planned.fills
        if not planned.moves:
            break
    assert spread(fills) <= 0.03
    assert all(170 * MIB <= one.used_bytes <= 230 * MIB for one in fills)


def test_nothing_moves_where_it_would_be_short_or_its_holders_are_not_there() -> None:
    fills = [fill("node-1", 900 * MIB), fill("node-2", 0)]
    for one in (held(1, "node-1", wished=2), held(1, "node-1", "node-9")):
        assert plan_moves([one], fills, least_spread=0.1, budget_bytes=MIB).moves == []
    only_rack = [fill("node-1", 900 * MIB), fill("node-2", 0, domain="a"), fill("node-3", 500 * MIB, domain="a")]
    assert plan_moves([held(1, "node-1", "node-3")], only_rack, least_spread=0.1, budget_bytes=MIB).moves == []


def test_jobs_go_from_one_node_to_another_and_are_bounded() -> None:
    moves = [Move(number.to_bytes(32, "big"), MIB, "node-1", f"node-{2 + number % 2}") for number in range(200)]
    found = jobs(moves, 20 * MIB)
    assert sorted(one for job in found for one in job.object_ids) == [move.object_id for move in moves]
    assert all(job.bytes <= 20 * MIB and len(job.object_ids) <= JOB_OBJECTS for job in found)
    assert {(job.source, job.target) for job in found} == {("node-1", "node-2"), ("node-1", "node-3")}


def entry(number: int, *, due_s: int = 0, reason: str = "extra") -> Discarded:
    return Discarded(number.to_bytes(32, "big"), reason, 10, due_s)  # type: ignore[arg-type]  # a text of few


@given(
    due=st.booleans(),
    reason=st.sampled_from(["orphan", "extra"]),
    holders=st.none() | st.sets(st.sampled_from(NAMES), max_size=4),
    wished=st.integers(1, 3),
    counted=st.sets(st.sampled_from(NAMES)),
    silent=st.sets(st.sampled_from(NAMES)),
    put_aside=st.booleans(),
    offered=st.booleans(),
    at_once=st.booleans(),
)
def test_nothing_is_deleted_that_may_be_needed(
    *, due: bool, reason: str, holders: set[str] | None, wished: int, counted: set[str], silent: set[str],
    put_aside: bool, offered: bool, at_once: bool,
) -> None:  # fmt: skip
    one = entry(1, due_s=0 if due else 5, reason=reason)
    shown = {} if holders is None else {one.object_id: held(1, *holders, wished=wished)}
    nobodys = set() if holders is not None or offered else {one.object_id}
    facts = Facts(shown, nobodys, {one.object_id} if put_aside else set())
    found = judge([one], facts, counted | silent, counted, at_once=at_once)
    assert len([*found.restore, *found.purge, *found.verify]) <= 1
    if found.purge:
        assert (reason, holders, offered) == ("orphan", None, False)
        assert at_once or (due and put_aside)
    if found.verify:
        assert holders is not None
        assert len(holders & counted) >= wished
        assert due or at_once
    is_short = holders is not None and len(holders & (counted | silent)) < wished
    assert found.restore == ([one] if is_short else [])
