"""When a node counts as gone: by the clock, after silence and grace, and not a moment longer than it is silent."""

from gateway.liveness import Nodes
from gateway.watch import predecessor
from transfer.heartbeat import Heartbeat


def beat(node_id: str, sequence: int) -> Heartbeat:
    return Heartbeat(
        node_id=node_id,
        incarnation="disk",
        started_ns=1,
        sequence=sequence,
        host="127.0.0.1",
        port=1,
        failure_domain="",
        free_bytes=1,
        used_bytes=0,
        objects=0,
        flows=0,
    )


def test_a_node_is_gone_after_silence_and_grace_until_it_is_heard() -> None:
    nodes = Nodes(["a", "b"], silent_after_s=10)
    nodes.record(beat("a", 1), 100.0)
    nodes.record(beat("b", 1), 100.0)
    assert nodes.gone(109.0, grace_s=20) == set()
    nodes.record(beat("b", 2), 120.0)
    assert (nodes.state("a", 120.0), nodes.gone(129.9, grace_s=20)) == ("silent", set())
    assert nodes.gone(130.0, grace_s=20) == {"a"}
    nodes.record(beat("a", 2), 131.0)
    assert nodes.gone(131.0, grace_s=20) == set()


def test_a_node_that_was_never_heard_has_its_grace_from_the_first_look() -> None:
    """So that a gateway that starts before its nodes does not copy everything."""
    nodes = Nodes(["a"], silent_after_s=10)
    assert nodes.gone(1000.0, grace_s=20) == set()
    assert nodes.gone(1029.0, grace_s=20) == set()
    assert nodes.gone(1030.0, grace_s=20) == {"a"}


def test_a_page_above_the_predecessor_begins_with_the_id() -> None:
    for object_id in (b"\0" * 31 + b"\1", b"\1" + b"\0" * 31, b"\xff" * 32, bytes(range(32))):
        assert predecessor(object_id) < object_id
        assert int.from_bytes(object_id, "big") - int.from_bytes(predecessor(object_id), "big") == 1
