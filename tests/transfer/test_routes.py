"""Flows are spread over nodes by weight; nodes in trouble come last; more nodes than flows are no matter."""

from collections import Counter

from transfer.api import Node
from transfer.routes import Routes


def nodes(*weights: float) -> list[Node]:
    return [
        Node(node_id=f"node-{number}", host="127.0.0.1", port=1, weight=weight, public_key="", tls=False)
        for number, weight in enumerate(weights, 1)
    ]


def picked(routes: Routes, count: int) -> Counter[str]:
    return Counter(routes.pick().node_id for _ in range(count))


def test_flows_go_to_the_best_nodes_first_and_then_in_turn() -> None:
    routes = Routes(nodes(1, 1, 1))
    assert [routes.pick().node_id for _ in range(4)] == ["node-1", "node-2", "node-3", "node-1"]


def test_heavier_nodes_get_more_flows() -> None:
    assert picked(Routes(nodes(0.5, 0.25, 0.25)), 8) == {"node-1": 4, "node-2": 2, "node-3": 2}


def test_a_node_in_trouble_comes_last_until_a_flow_there_ends_well() -> None:
    routes = Routes(nodes(1, 1))
    routes.close(routes.pick().node_id, in_trouble=True)
    assert picked(routes, 3) == {"node-2": 3}
    for _ in range(3):
        routes.close("node-2", in_trouble=True)
    assert routes.pick().node_id == "node-1"
    routes.close("node-1", in_trouble=False)
    assert routes.pick().node_id == "node-1"


def test_a_wanted_node_without_a_flow_comes_first_unless_it_is_in_much_more_trouble() -> None:
    routes = Routes(nodes(1, 1, 1))
    assert [routes.pick({"node-3"}).node_id for _ in range(2)] == ["node-3", "node-1"]
    for _ in range(4):
        routes.close("node-3", in_trouble=True)
        assert routes.pick({"node-3"}).node_id == ("node-3" if _ < 3 else "node-2")


def test_a_spare_node_is_one_without_a_flow() -> None:
    routes = Routes(nodes(1, 1))
    routes.pick()
    assert routes.has_spare()
    routes.pick()
    assert not routes.has_spare()


def test_nodes_that_the_gateway_no_longer_names_are_left() -> None:
    routes = Routes(nodes(1, 1))
    routes.update(nodes(1, 1, 1)[1:])
    assert routes.node_ids == {"node-2", "node-3"}
    assert picked(routes, 4) == {"node-2": 2, "node-3": 2}


def test_nodes_that_refused_all_that_waits_come_last() -> None:
    routes = Routes(nodes(1, 1))
    for _ in range(4):
        routes.close(routes.pick(refusing={"node-1"}).node_id, in_trouble=True)
    assert routes.pick(refusing={"node-1"}).node_id == "node-2"
    assert routes.pick(refusing={"node-1", "node-2"}).node_id == "node-1"
