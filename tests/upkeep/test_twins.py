"""When a node counts as running twice: two lives that go on beside each other, and nothing less than that."""

import msgspec

from gateway.liveness import TWIN_BEATS, Nodes
from tests.repair.test_gone import beat
from transfer.heartbeat import Heartbeat


def of(life: int, sequence: int, **others: object) -> Heartbeat:
    return msgspec.structs.replace(beat("a", sequence), started_ns=life, **others)


def test_two_lives_that_go_on_are_two_machines_until_one_is_silent() -> None:
    nodes = Nodes(["a"], silent_after_s=10)
    for number in range(1, TWIN_BEATS + 1):
        assert nodes.twins(float(number)) == frozenset()
        assert nodes.record(of(2, number), float(number))
        assert not nodes.record(of(1, number), float(number))
    assert nodes.twins(TWIN_BEATS + 0.5) == {"a"}
    nodes.record(of(2, 100), 20.0)
    assert nodes.twins(20.0) == frozenset()


def test_a_restart_and_what_comes_late_or_again_are_no_twin() -> None:
    nodes = Nodes(["a"], silent_after_s=10)
    for number in range(1, 9):
        nodes.record(of(1, number), number / 10)
    for number in range(1, 9):
        nodes.record(of(2, number), 1 + number / 10)
        nodes.record(of(1, 8), 1 + number / 10)  # the last of the first life, again and again
        nodes.record(of(2, number), 1 + number / 10)
        nodes.record(of(2, 1), 1 + number / 10)
    assert nodes.twins(2.0) == frozenset()


def test_the_older_machine_is_heard_again_when_the_newer_one_is_silent() -> None:
    """A clone was stopped: the node that it was made of goes on without anybody's doing."""
    nodes = Nodes(["a"], silent_after_s=10)
    for number in range(1, 10):
        nodes.record(of(1, number), number / 10)
    for number in range(1, 6):
        assert nodes.record(of(2, number), float(number))
        assert not nodes.record(of(1, 9 + number), float(number))
    assert nodes.twins(5.0) == {"a"}
    assert not nodes.record(of(1, 20), 14.0)
    assert nodes.record(of(1, 21), 15.5)
    assert (nodes.state("a", 15.5), nodes.twins(16.0)) == ("live", frozenset())
    assert not nodes.record(of(1, 21), 15.6)
    assert nodes.record(of(2, 6), 16.0), "and the clone, when it comes back"


def test_a_former_life_is_not_brought_back_by_what_was_heard_of_it_before() -> None:
    """Somebody recorded its heartbeats, and sends them again when the node is down."""
    nodes = Nodes(["a"], silent_after_s=10)
    for life in (1, 2):
        for number in range(1, 10):
            nodes.record(of(life, number), float(life))
    for number in range(1, 10):
        assert not nodes.record(of(1, number), 100.0 + number)
        assert not nodes.record(of(2, number), 100.0 + number)
    assert (nodes.state("a", 110.0), nodes.twins(110.0)) == ("silent", frozenset())


def test_one_life_that_says_two_things_at_once_is_two_machines() -> None:
    """A running machine was cloned with its memory: both go on from the same number."""
    nodes = Nodes(["a"], silent_after_s=10)
    for number in range(1, TWIN_BEATS + 1):
        nodes.record(of(1, number, objects=5), float(number))
        nodes.record(of(1, number, objects=6), float(number))
    assert nodes.twins(float(TWIN_BEATS)) == {"a"}
