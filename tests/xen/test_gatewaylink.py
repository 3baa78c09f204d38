"""What the gateway's status is taken to say of nodes; real gateways are asked in `tests.xen.real`."""

from typing import Any

from transfer.api import DrainStatus, NodeStatus, RepairStatus, Status
from xen.cloud import Node
from xen.gatewaylink import GatewayCloud


def status(*nodes: NodeStatus, drains: list[DrainStatus]) -> Status:
    nothing: dict[str, Any] = {"objects": 0, "bytes": 0, "stored_bytes": 0, "studies": 0, "transfers": []}
    return Status(nodes=list(nodes), repairs=RepairStatus(drains=drains), **nothing)


def node(name: str, **more: Any) -> NodeStatus:
    usual = {"address": "", "state": "live", "free_bytes": 0, "used_bytes": 0, "objects": 0, "flows": 0}
    return NodeStatus(node_id=name, **usual | {"heartbeat_age_s": 1.0} | more)


class Client:
    """Answers one question."""

    def __init__(self, answer: Status) -> None:
        self._answer = answer

    async def status(self) -> Status:
        return self._answer


async def test_room_is_free_used_and_what_was_put_aside() -> None:
    client: Any = Client(
        status(
            node("node-1", free_bytes=10, used_bytes=30, trash_bytes=60),
            node("node-2", state="unknown", heartbeat_age_s=None),
            node("node-3", state="silent", heartbeat_age_s=700.0, free_bytes=5, used_bytes=5),
            drains=[DrainStatus(node_id="node-3", left_objects=2, left_bytes=9, claimed_objects=1, safe=False)],
        )
    )
    assert await GatewayCloud(client, "https://gateway").nodes() == {
        "node-1": Node(name="node-1", state="live", silent_s=1.0, free_bytes=10, total_bytes=100),
        "node-2": Node(name="node-2", state="unknown"),
        "node-3": Node(
            name="node-3",
            state="silent",
            silent_s=700.0,
            draining=True,
            needed_objects=3,
            free_bytes=5,
            total_bytes=10,
        ),
    }
