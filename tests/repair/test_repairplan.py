"""Who copies what to whom: never to a holder or without room, to other failure domains first, as far as it goes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.placement import Candidate
from gateway.repairplan import JOB_BYTES, JOB_OBJECTS, OVERHEAD_BYTES, Shortage, plan

GIB = 1 << 30
NODES = [f"node-{number}" for number in range(1, 6)]


def live(*node_ids: str, domain: str = "", free_bytes: int = GIB) -> list[Candidate]:
    return [Candidate(node_id, domain or node_id, free_bytes) for node_id in node_ids]


def short(number: int, *holders: str, missing: int = 1, size: int = 1000) -> Shortage:
    return Shortage(number.to_bytes(32, "big"), size, frozenset(holders), missing)


def test_a_copy_goes_from_a_holder_to_one_that_is_none() -> None:
    (job,) = plan([short(1, "node-1")], live("node-1", "node-2")).jobs
    assert (job.source, job.target, job.object_ids) == ("node-1", "node-2", [(1).to_bytes(32, "big")])


def test_other_failure_domains_come_first() -> None:
    nodes = [*live("node-1", "node-2", "node-3", domain="host-1"), *live("node-4", domain="host-2", free_bytes=10_000)]
    assert [job.target for job in plan([short(1, "node-1")], nodes).jobs] == ["node-4"]
    targets = {job.target for job in plan([short(1, "node-1", missing=2)], nodes).jobs}
    assert "node-4" in targets
    assert len(targets) == 2


def test_what_nobody_can_give_or_take_waits() -> None:
    for holders, nodes in (
        (["node-9"], live("node-1")),  # the holder does not live
        ([], live("node-1", "node-2")),  # lost
        (["node-1"], live("node-1")),  # nobody else
        (["node-1"], [*live("node-1"), *live("node-2", free_bytes=1000)]),  # no room
    ):
        found = plan([short(1, *holders)], nodes)
        assert (found.jobs, found.waiting) == ([], 1)


def test_a_node_that_drains_is_read_from_and_not_written_to() -> None:
    found = plan([short(1, "node-1")], live("node-1", "node-2", "node-3"), draining={"node-1", "node-2"})
    assert [(job.source, job.target) for job in found.jobs] == [("node-1", "node-3")]
    assert plan([short(1, "node-1")], live("node-1", "node-2"), draining={"node-2"}).waiting == 1


def test_a_part_of_what_is_missing_is_made_and_the_rest_waits() -> None:
    found = plan([short(1, "node-1", missing=3)], live("node-1", "node-2"))
    assert ([job.target for job in found.jobs], found.waiting) == (["node-2"], 1)


def test_room_that_is_planned_for_is_taken() -> None:
    room = 3 * (1000 + OVERHEAD_BYTES)
    found = plan([short(number, "node-1") for number in range(5)], [*live("node-1"), *live("node-2", free_bytes=room)])
    assert (sum(len(job.object_ids) for job in found.jobs), found.waiting) == (3, 2)


def test_jobs_are_bounded() -> None:
    many = [short(number, "node-1") for number in range(150)]
    jobs = plan(many, live("node-1", "node-2")).jobs
    assert [len(job.object_ids) for job in jobs] == [JOB_OBJECTS, JOB_OBJECTS, 150 - 2 * JOB_OBJECTS]
    large = [short(number, "node-1", size=JOB_BYTES // 2 + 1) for number in range(3)]
    assert [len(job.object_ids) for job in plan(large, live("node-1", "node-2")).jobs] == [1, 1, 1]


def test_all_holders_share_the_reading_and_all_others_the_writing() -> None:
    many = [short(number, "node-1", "node-2") for number in range(400)]
    found = plan(many, live(*NODES))
    sources, targets = Counter[str](), Counter[str]()
    for job in found.jobs:
        sources[job.source] += len(job.object_ids)
        targets[job.target] += len(job.object_ids)
    assert set(sources) == {"node-1", "node-2"}
    assert set(targets) == {"node-3", "node-4", "node-5"}
    assert min(sources.values()) > 100
    assert min(targets.values()) > 60


@given(
    shortages=st.lists(
        st.tuples(st.sets(st.sampled_from(NODES)), st.integers(1, 4), st.integers(0, 1 << 20)), max_size=30
    ),
    nodes=st.lists(
        st.tuples(st.sampled_from(NODES), st.sampled_from(["a", "b"]), st.integers(0, 1 << 22)),
        unique_by=lambda n: n[0],
    ),
)
def test_no_plan_copies_to_a_holder_twice_or_beyond_the_room(
    shortages: list[tuple[set[str], int, int]], nodes: list[tuple[str, str, int]]
) -> None:
    wanted = [short(n, *holders, missing=missing, size=size) for n, (holders, missing, size) in enumerate(shortages)]
    candidates = [Candidate(*node) for node in nodes]
    found = plan(wanted, candidates)
    by_id = {one.object_id: one for one in wanted}
    copies = [(object_id, job.source, job.target) for job in found.jobs for object_id in job.object_ids]
    assert len({(object_id, target) for object_id, _, target in copies}) == len(copies)
    used = Counter[str]()
    for object_id, source, target in copies:
        one = by_id[object_id]
        assert source in one.holders
        assert target not in one.holders
        used[target] += one.stored_bytes
    assert all(used[node.node_id] <= node.free_bytes for node in candidates)
    made = Counter(object_id for object_id, _, _ in copies)
    assert all(made[one.object_id] <= one.missing for one in wanted)
    assert found.waiting == sum(made[one.object_id] < one.missing for one in wanted)
    assert plan(wanted, candidates) == found
