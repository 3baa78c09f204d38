"""Placement decides alone, by the nodes and the key."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.placement import Candidate, place, weights

candidates = st.lists(
    st.builds(Candidate, st.uuids().map(str), st.sampled_from(["", "a", "b", "c"]), st.integers(0, 1 << 46)),
    max_size=20,
    unique_by=lambda node: node.node_id,
)


@given(candidates, st.text(max_size=20), st.integers(1, 10), st.integers(0, 1 << 46), st.randoms())
def test_choice_depends_on_the_nodes_and_not_on_their_order(nodes, key, count, room, random) -> None:
    chosen = place(nodes, key=key, count=count, room_bytes=room)
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert place(shuffled, key=key, count=count, room_bytes=room) == chosen
    fitting = [node for node in nodes if node.free_bytes >= room and node.free_bytes > 0]
    assert len(chosen) == min(count, len(fitting))
    assert len({node.node_id for node in chosen}) == len(chosen)
    assert all(node in fitting for node in chosen)


@given(candidates, st.integers(1, 10))
def test_no_failure_domain_is_taken_twice_before_every_other_once(nodes, count) -> None:
    chosen = place(nodes, key="k", count=count, room_bytes=1)
    used = Counter(node.failure_domain or node.node_id for node in chosen)
    there = {node.failure_domain or node.node_id for node in nodes if node.free_bytes}
    assert len(used) == min(len(there), len(chosen))


@given(candidates, st.text(max_size=20))
def test_a_node_that_goes_moves_no_other_choice(nodes, key) -> None:
    alone = [Candidate(node.node_id, "", node.free_bytes) for node in nodes]
    ranked = place(alone, key=key, count=len(alone), room_bytes=0)
    for gone in ranked:
        left = place([node for node in alone if node != gone], key=key, count=len(alone), room_bytes=0)
        assert left == [node for node in ranked if node != gone]


def test_chance_to_be_first_is_the_share_of_free_space() -> None:
    nodes = [Candidate("a", "", 100), Candidate("b", "", 300)]
    first = Counter(place(nodes, key=str(key), count=1, room_bytes=0)[0].node_id for key in range(4000))
    assert 900 < first["a"] < 1100  # 1000 +- 3.6 standard deviations


@given(candidates.filter(bool))
def test_weights_are_shares(nodes) -> None:
    assert math.isclose(sum(weights(nodes)), 1)
