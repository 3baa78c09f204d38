"""The status in lines and columns; what the gateway says goes through `up` in tests/cluster."""

import io

import msgspec
from rich.console import Console

from agent import status
from transfer.api import NodeStatus, RepairStatus, Status, TransferStatus


def node(name: str, state: str, age_s: float | None) -> NodeStatus:
    return NodeStatus(
        node_id=name,
        address="127.0.0.1:4242",
        state=state,
        free_bytes=5_000_000_000,
        used_bytes=2_000_000,
        objects=3,
        flows=1,
        heartbeat_age_s=age_s,
    )


TRANSFER = TransferStatus(
    transfer_id="t1",
    sender="ct 1",
    state="open",
    objects=4,
    bytes=1000,
    durable_objects=2,
    opened_at="2026-01-02T03:04:05Z",
)
STATUS = Status(
    objects=3,
    bytes=2_000_000,
    stored_bytes=1_000_000,
    studies=1,
    nodes=[node("node-1", "live", 0.54), node("node-2", "unknown", None)],
    transfers=[TRANSFER],
)


def test_lines_name_every_value() -> None:
    totals, first, second, transfer = status.lines(STATUS)
    assert totals == "3 objects in 1 studies, 2.00 MB (1.00 MB as they rest: 50% saved), 1 of 2 nodes live"
    assert first == (
        "node node-1 state=live address=127.0.0.1:4242 objects=3 used=2.00MB free=5.00GB flows=1 heard=0.5sago"
    )
    assert second.endswith("state=unknown address=127.0.0.1:4242 objects=3 used=2.00MB free=5.00GB flows=1 heard=never")
    assert transfer.startswith("transfer t1 state=open sender=ct1 objects=4 durable=2 bytes=")
    assert transfer.endswith("opened=2026-01-02T03:04:05Z")


def test_damage_and_repair_are_said_once_there_were_any() -> None:
    repairs = RepairStatus(
        damaged_total=3, repaired_total=2, damaged_objects=1, short_objects=1, waiting_objects=1, lost_objects=1,
        orphan_objects=4, orphan_bytes=2_000_000, gone_nodes=["node-2"],
    )  # fmt: skip
    text = list(status.lines(msgspec.structs.replace(STATUS, repairs=repairs)))[1]
    assert text == (
        "repairs 3 copies damaged and 2 made ever; now 1 objects short of replicas (1 wait), 1 damaged and not made "
        "good, 1 lost, 4 orphans (2.00 MB), gone: node-2"
    )
    assert not [line for line in status.lines(STATUS) if line.startswith("repairs")]


def test_tables_hold_the_same() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(status._tables(STATUS))
    text = console.file.getvalue()
    assert all(word in text for word in ("node-1", "live", "node-2", "unknown", "never", "t1", "ct 1", "5.00 GB"))


def test_a_node_that_cannot_list_all_its_folders_is_named() -> None:
    repairs = RepairStatus(unlisted_folders={"node-2": 3, "node-1": 1})
    text = list(status.lines(msgspec.structs.replace(STATUS, repairs=repairs)))[1]
    assert text.endswith(", folders that cannot be read (look at its log and its disk): 1 of node-1, 3 of node-2")
