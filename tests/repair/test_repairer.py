"""The gateway's repairer against nodes that speak the protocol and lie, refuse or keep silent as a test wants it."""

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import heartbeats, stocktake, unlisted, watch
from gateway.settings import NodeEntry
from gateway.watch import LOOK_S
from tests.gateway.conftest import identities
from tests.gateway.kit import (
    NODE_IDS,
    TRANSFERS,
    Gateway,
    Identities,
    Node,
    closing_all,
    get,
    images,
    post,
    settings,
    upload,
)
from transfer import heartbeat, receipts, tickets
from transfer.api import OpenTransfer
from transfer.errors import FullError
from transfer.membership import Revoke
from transfer.protocol.frames import encode_control
from transfer.protocol.messages import Check, Checked, Copied, Copy, Refused
from transfer.receipts import Receipt, ReceiptBatch
from transfer.upkeep import Drain

__all__ = ["identities"]
Nodes = Mapping[str, "Holder"]  # a mapping, so that other kinds of holders fit


@dataclasses.dataclass
class Manner:
    """How a node behaves."""

    refuses_copies: str = ""  # an error code: every object is refused with it
    is_unreadable: bool = False  # its disk gives nothing, and is not damaged as far as anybody knows
    copies: int = 0  # made from here
    asked_copies: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class Holder(Node):
    """A node that lists what it holds, and copies it to others of the same test."""

    def __init__(self, identities: Identities, node_id: str, gateway_key: str, others: Nodes) -> None:
        self.manner = Manner()
        self.falls_mute_at_copy = False
        self._others = others
        self._identities = identities
        super().__init__(identities, node_id, gateway_key)

    def heartbeat(self, **others: Any) -> Any:
        return super().heartbeat(**{"quarantined": len(self.quarantined), "failure_domain": self.node_id, **others})

    def _answer(self, frame: Any, connection: Any, peer: Any) -> bytes:
        match frame:
            case Copy() if self.falls_mute_at_copy:
                self.mute = True
                return b""
            case Copy():
                return encode_control(self._copy(frame))
            case Check():
                here = [self.held[one] for one in frame.object_ids if one in self.held]
                sound = receipts.sign(ReceiptBatch(self.node_id, "disk-1", "", here), self.key)
                return encode_control(Checked(sound, [one for one in frame.object_ids if one not in self.held], []))
        return super()._answer(frame, connection, peer)

    def _copy(self, asked: Copy) -> Copied:
        ticket = tickets.verify(asked.ticket, self._gateway_key)
        (target,) = [node.node_id for node in ticket.nodes if node.node_id != self.node_id]
        made: list[Receipt] = []
        failed: list[Refused] = []
        for one in asked.object_ids:
            self.manner.asked_copies.append((target, one.hex()))
            code = "" if one in self.held else "not_stored"
            code = code or ("storage" if self.manner.is_unreadable else "")
            code = code or self._others[target].manner.refuses_copies
            if code:
                failed.append(Refused(one, code, "on purpose"))
                continue
            self._others[target].held[one] = self.held[one]
            self.manner.copies += 1
            made.append(msgspec.structs.replace(self.held[one], node_ids=[self.node_id, target]))
        return Copied(receipts.sign(ReceiptBatch(self.node_id, "disk-1", "", made), self.key), failed)


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    quick = {"silent_after_s": 3600, "repair_every_s": 0.2, "stocktake_every_s": 0.5}
    running = Gateway(identities, settings(identities, tmp_path / "gateway", **quick))
    yield running
    running.stop()


@pytest.fixture
def nodes(gateway: Gateway, identities: Identities) -> Iterator[Nodes]:
    made: Nodes = {}
    key = identities.public_key("gateway-1")
    for node_id in NODE_IDS:
        made[node_id] = Holder(identities, node_id, key, made)
    with closing_all(list(made.values())):
        for node in made.values():
            node.beat(gateway)
        yield made


def store(gateway: Gateway, nodes: Nodes, *holders: str, count: int = 4) -> list[str]:
    """Commit objects of which two replicas are wished and which these nodes hold; return their ids."""
    sent = images(count)
    first = nodes[holders[0]]
    for image in sent:
        for holder in holders:
            nodes[holder].held[bytes.fromhex(image.object_id)] = image.receipt(holder)
    real_sign = first.sign
    first.sign = lambda found, transfer_id: real_sign(  # type: ignore[method-assign]  # receipts that name both nodes
        [msgspec.structs.replace(one, node_ids=list(holders)) for one in found], transfer_id
    )
    upload(gateway.client("ws-1"), sent, first, replicas=2)
    first.sign = real_sign  # type: ignore[method-assign]  # in this test alone
    return [image.object_id for image in sent]


def holders(gateway: Gateway) -> dict[str, list[str]]:
    found = get(gateway.client("op-1"), "/api/v1/objects")["objects"]
    return {entry["object_id"]: entry["node_ids"] for entry in found}


def repairs(gateway: Gateway) -> dict[str, Any]:
    return get(gateway.client("op-1"), "/api/v1/status")["repairs"]


def wait(probe: Callable[[], Any], within_s: float = 20.0) -> Any:
    deadline_s = time.monotonic() + within_s
    while not (found := probe()):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return found


def lose(node: Holder, gateway: Gateway, object_id: str) -> None:
    """Damage an object's only file here, and tell of it as a node does."""
    node.quarantined.add(bytes.fromhex(object_id))
    del node.held[bytes.fromhex(object_id)]
    node.beat(gateway)


def test_damage_that_a_node_tells_is_made_good_elsewhere(gateway: Gateway, nodes: Nodes) -> None:
    ids = store(gateway, nodes, "node-1", "node-2")
    lose(nodes["node-1"], gateway, ids[0])
    wait(lambda: repairs(gateway)["repaired_total"])
    assert len(holders(gateway)[ids[0]]) == 2
    assert all(holders(gateway)[other] == ["node-1", "node-2"] for other in ids[1:])
    found = repairs(gateway)
    assert (found["damaged_total"], found["damaged_objects"], found["lost_objects"]) == (1, 0, 0)
    assert nodes["node-2"].manner.copies == 1


def test_a_page_that_is_not_the_answer_takes_nothing_away(gateway: Gateway, nodes: Nodes) -> None:
    ids = store(gateway, nodes, "node-1", "node-2")
    nodes["node-1"].forges_pages = True
    before = holders(gateway)
    lose(nodes["node-1"], gateway, ids[0])
    asked = nodes["node-1"].tickets
    wait(lambda: any("repair" in ticket.rights for ticket in asked))
    time.sleep(0.5)
    assert holders(gateway) == before
    assert repairs(gateway)["damaged_total"] == 0


def test_an_object_that_a_source_turns_out_to_lack_is_believed_by_its_signed_word_alone(
    gateway: Gateway, nodes: Nodes
) -> None:
    """Its file was removed by hand on one node, which nobody noticed, and the other's copy rots."""
    ids = store(gateway, nodes, "node-1", "node-2")
    del nodes["node-2"].held[bytes.fromhex(ids[1])]
    lose(nodes["node-1"], gateway, ids[1])
    wait(lambda: repairs(gateway)["lost_objects"] == 1)
    assert holders(gateway)[ids[1]] == []
    assert repairs(gateway)["damaged_total"] == 2
    nodes["node-2"].held[bytes.fromhex(ids[1])] = images(4)[1].receipt("node-2")  # put back from a backup
    wait(lambda: repairs(gateway)["lost_objects"] == 0)
    wait(lambda: len(holders(gateway)[ids[1]]) == 2)


def test_a_target_that_takes_nothing_does_not_hold_up_the_repair(gateway: Gateway, nodes: Nodes) -> None:
    ids = store(gateway, nodes, "node-1", "node-2", count=12)
    nodes["node-3"].manner.refuses_copies = "full"
    for object_id in ids:
        nodes["node-1"].quarantined.add(bytes.fromhex(object_id))
        del nodes["node-1"].held[bytes.fromhex(object_id)]
    nodes["node-1"].beat(gateway)
    wait(lambda: repairs(gateway)["repaired_total"] == len(ids))
    wait(lambda: all(holders(gateway)[one] == ["node-1", "node-2"] for one in ids))
    assert {target for target, _ in nodes["node-2"].manner.asked_copies} == {"node-1", "node-3"}
    wait(lambda: repairs(gateway)["short_objects"] == 0)


def test_a_copy_that_was_not_doubled_is_found_again_too(gateway: Gateway, nodes: Nodes) -> None:
    """One replica was wished, it rots, and an operator puts the file back."""
    (image,) = images(1)
    key = bytes.fromhex(image.object_id)
    nodes["node-1"].held[key] = image.receipt("node-1")
    upload(gateway.client("ws-1"), [image], nodes["node-1"])
    lose(nodes["node-1"], gateway, image.object_id)
    wait(lambda: repairs(gateway)["lost_objects"] == 1)
    nodes["node-1"].held[key] = image.receipt("node-1")
    wait(lambda: repairs(gateway)["lost_objects"] == 0)
    assert holders(gateway) == {image.object_id: ["node-1"]}


def test_a_file_that_was_removed_by_hand_is_missed_by_the_stocktake(gateway: Gateway, nodes: Nodes) -> None:
    ids = store(gateway, nodes, "node-1", "node-2", count=9)  # several of this node's pages
    removed = sorted(ids)[1::3]
    for object_id in removed:
        del nodes["node-1"].held[bytes.fromhex(object_id)]
    wait(lambda: repairs(gateway)["repaired_total"] == 3)
    assert repairs(gateway)["damaged_total"] == 3
    assert all(len(held) == 2 for held in holders(gateway).values())
    assert all(held == ["node-1", "node-2"] for one, held in holders(gateway).items() if one not in removed)


def test_a_node_whose_list_cannot_be_had_keeps_the_others_from_no_stocktake(gateway: Gateway, nodes: Nodes) -> None:
    ids = store(gateway, nodes, "node-2", "node-3")
    nodes["node-1"].forges_pages = True
    del nodes["node-2"].held[bytes.fromhex(ids[0])]
    wait(lambda: repairs(gateway)["damaged_total"] == 1)
    wait(lambda: len(holders(gateway)[ids[0]]) == 2)


def test_of_a_folder_that_a_node_cannot_list_nothing_is_missed_and_of_all_others_it_is(
    gateway: Gateway, nodes: Nodes
) -> None:
    """What cannot be listed is told of, believed as before, and compared once it can be."""
    ids = sorted(store(gateway, nodes, "node-1", "node-2", count=9))
    before, hidden, behind = ids[1], ids[4], ids[7]
    assert len({one[:4] for one in (before, hidden, behind)}) == 3
    nodes["node-1"].sick_folders = {bytes.fromhex(hidden)[:2]}
    for object_id in (before, hidden, behind):
        del nodes["node-1"].held[bytes.fromhex(object_id)]
    wait(lambda: repairs(gateway)["repaired_total"] == 2)
    wait(lambda: repairs(gateway)["unlisted_folders"] == {"node-1": 1})
    wait(lambda: "fascicle_gateway_folders_unlisted 1.0" in gateway.client("op-1").get("/metrics").text)
    assert repairs(gateway)["damaged_total"] == 2
    assert holders(gateway)[hidden] == ["node-1", "node-2"]
    nodes["node-1"].sick_folders.clear()
    wait(lambda: repairs(gateway)["damaged_total"] == 3)
    wait(lambda: repairs(gateway)["unlisted_folders"] == {})


def test_damage_is_made_good_while_of_another_folder_nothing_can_be_told(
    gateway: Gateway, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is asked again about what it cannot tell; no stocktake is needed for it."""

    async def nothing(_: Any) -> None: ...

    monkeypatch.setattr(stocktake.Stocktake, "run", nothing)
    monkeypatch.setattr(watch, "TROUBLE_S", 0.1)
    ids = store(gateway, nodes, "node-1", "node-2")
    nodes["node-1"].sick_folders = {bytes.fromhex(ids[0])[:2]}
    for object_id in ids[:2]:
        nodes["node-1"].quarantined.add(bytes.fromhex(object_id))
        del nodes["node-1"].held[bytes.fromhex(object_id)]
    nodes["node-1"].beat(gateway)
    wait(lambda: repairs(gateway)["repaired_total"] == 1)
    assert (repairs(gateway)["damaged_total"], holders(gateway)[ids[0]]) == (1, ["node-1", "node-2"])
    nodes["node-1"].sick_folders.clear()
    wait(lambda: repairs(gateway)["repaired_total"] == 2)


def test_a_node_that_can_list_nothing_is_not_asked_for_ever(
    gateway: Gateway, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = store(gateway, nodes, "node-1", "node-2")
    monkeypatch.setattr(unlisted, "FOLDERS_MAX", 5)
    nodes["node-1"].sick_folders = {number.to_bytes(2, "big") for number in range(1 << 16)}
    nodes["node-1"].held.clear()
    del nodes["node-2"].held[bytes.fromhex(ids[0])]
    wait(lambda: repairs(gateway)["unlisted_folders"] == {"node-1": 5})
    wait(lambda: repairs(gateway)["damaged_total"] == 1)  # of the node that can
    assert all("node-1" in held for held in holders(gateway).values())


def test_what_a_node_held_that_is_revoked_is_short_at_once(gateway: Gateway, nodes: Nodes) -> None:
    """Not an hour later, when the next pass is due where nothing was short."""
    ids = store(gateway, nodes, "node-1", "node-2")
    time.sleep(2)  # the passes that the start began are over
    post(gateway.client("admin-1"), "/api/v1/revocations", Revoke(name="node-2"))
    wait(lambda: all("node-3" in held for held in holders(gateway).values()))
    assert repairs(gateway)["repaired_total"] == len(ids)


def test_a_disk_that_could_be_noted_only_late_is_missed_at_once(
    gateway: Gateway, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue had no room when the heartbeat came; the pass that this began found nothing short."""
    ids = store(gateway, nodes, "node-1", "node-2")

    def fail(*_: Any, **__: Any) -> bool:
        raise FullError("no room")

    with monkeypatch.context() as full:
        full.setattr(heartbeats, "take_disk", fail)
        nodes["node-2"].disk = "disk-2"
        nodes["node-2"].beat(gateway)
        time.sleep(3)  # a look, and the pass
    nodes["node-2"].held.clear()
    nodes["node-2"].beat(gateway)
    wait(lambda: repairs(gateway)["repaired_total"] == len(ids))


def test_what_no_listing_shows_is_counted_and_left_alone(gateway: Gateway, nodes: Nodes) -> None:
    ids = store(gateway, nodes, "node-1", "node-2")
    strays = images(3, seed="stray")
    for image in strays:
        nodes["node-3"].held[bytes.fromhex(image.object_id)] = image.receipt("node-3")
    wait(lambda: repairs(gateway)["orphan_objects"] == 3)
    assert repairs(gateway)["orphan_bytes"] == sum(len(image.data) // 2 for image in strays)
    assert set(holders(gateway)) == set(ids)
    assert repairs(gateway)["damaged_total"] == 0
    assert len(nodes["node-3"].held) == 3


def test_a_copy_that_no_receipt_told_of_counts_when_it_is_listed(gateway: Gateway, nodes: Nodes) -> None:
    ids = store(gateway, nodes, "node-1", "node-2")
    nodes["node-3"].held[bytes.fromhex(ids[0])] = images(1)[0].receipt("node-3")
    wait(lambda: holders(gateway)[ids[0]] == ["node-1", "node-2", "node-3"])


@pytest.mark.parametrize("unreadable", ["node-1", "node-2"])
def test_a_holder_whose_disk_does_not_give_an_object_is_not_the_only_source(
    gateway: Gateway, nodes: Nodes, unreadable: str
) -> None:
    """Whichever of them is drawn first."""
    ids = store(gateway, nodes, "node-1", "node-2")
    nodes[unreadable].manner.is_unreadable = True
    post(gateway.client("op-1"), "/api/v1/drains", Drain(node_id="node-2"))
    wait(lambda: all(held == ["node-1", "node-2", "node-3"] for held in holders(gateway).values()))
    wait(lambda: repairs(gateway)["short_objects"] == 0)
    assert nodes[unreadable].manner.copies == 0
    assert repairs(gateway)["repaired_total"] == len(ids)


def test_what_nothing_can_be_done_about_waits_and_is_said(gateway: Gateway, nodes: Nodes) -> None:
    for node in ("node-1", "node-3"):
        nodes[node].manner.refuses_copies = "busy"
    ids = store(gateway, nodes, "node-1", "node-2")
    lose(nodes["node-1"], gateway, ids[0])
    wait(lambda: repairs(gateway)["waiting_objects"] == 1)
    found = repairs(gateway)
    assert (found["short_objects"], found["lost_objects"], found["damaged_objects"]) == (1, 0, 1)
    assert holders(gateway)[ids[0]] == ["node-2"]


def test_a_single_replica_that_is_wished_is_not_doubled(gateway: Gateway, nodes: Nodes) -> None:
    sent = images(3)
    nodes["node-1"].held |= {bytes.fromhex(image.object_id): image.receipt("node-1") for image in sent}
    upload(gateway.client("ws-1"), sent, nodes["node-1"], replicas=1)
    time.sleep(1.5)
    assert [node.manner.asked_copies for node in nodes.values()] == [[], [], []]
    assert all(held == ["node-1"] for held in holders(gateway).values())


@contextlib.contextmanager
def beating(gateway: Gateway, nodes: Nodes) -> Iterator[None]:
    """Send heartbeats of all nodes that are not mute, again and again."""
    ended = threading.Event()

    def beat() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not ended.wait(0.2):
                for node in nodes.values():
                    if not node.mute:
                        sender.sendto(heartbeat.sign(node.heartbeat(), node.key), ("127.0.0.1", gateway.heartbeat_port))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_source_that_falls_silent_in_a_copy_is_not_waited_for(identities: Identities, tmp_path: Path) -> None:
    """It takes the question and says nothing more; once it is heard again the copy is made within moments."""
    gateway = Gateway(identities, settings(identities, tmp_path, silent_after_s=1.5, repair_every_s=0.2))
    made: Nodes = {}
    for node_id in NODE_IDS:
        made[node_id] = Holder(identities, node_id, identities.public_key("gateway-1"), made)
    source = made["node-2"]
    with closing_all([*made.values()]), beating(gateway, made):
        for node in made.values():
            node.beat(gateway)
        ids = store(gateway, made, "node-1", "node-2")
        source.falls_mute_at_copy = True
        lose(made["node-1"], gateway, ids[0])
        wait(lambda: source.mute)
        wait(lambda: get(gateway.client("op-1"), "/api/v1/status")["nodes"][1]["state"] == "silent")
        time.sleep(2 * LOOK_S)  # who is silent for less than a look at it is not seen to be
        assert repairs(gateway)["repaired_total"] == 0
        source.mute = source.falls_mute_at_copy = False
        wait(lambda: repairs(gateway)["repaired_total"] == 1, within_s=10)
    gateway.stop()


def test_a_draining_node_gives_all_that_it_holds_and_gets_nothing(identities: Identities, tmp_path: Path) -> None:
    """Also what nobody else holds. The objects come to it first; then the gateway is started with the node draining."""
    quick: dict[str, Any] = {"silent_after_s": 3600, "repair_every_s": 0.2}
    key = identities.public_key("gateway-1")
    made: Nodes = {}
    for node_id in NODE_IDS:
        made[node_id] = Holder(identities, node_id, key, made)
    with closing_all(list(made.values())):
        first = Gateway(identities, settings(identities, tmp_path, **quick))
        for node in made.values():
            node.beat(first)
        single = images(5, seed="single")
        made["node-1"].held |= {bytes.fromhex(image.object_id): image.receipt("node-1") for image in single}
        upload(first.client("ws-1"), single, made["node-1"])
        double = store(first, made, "node-1", "node-2")
        first.stop()
        entries = [
            NodeEntry(node_id=one, public_key=identities.public_key(one), draining=one == "node-1") for one in NODE_IDS
        ]
        second = Gateway(identities, settings(identities, tmp_path, node=entries, **quick))
        try:
            for node in made.values():
                node.beat(second)
            wait(lambda: repairs(second)["repaired_total"] == 9)
            wait(lambda: repairs(second)["short_objects"] == 0)
            assert repairs(second)["draining_nodes"] == ["node-1"]
            held = holders(second)
            assert all(len(set(held[image.object_id]) - {"node-1"}) == 1 for image in single)
            assert all(held[one] == ["node-1", "node-2", "node-3"] for one in double)
            go = post(second.client("ws-1"), TRANSFERS, OpenTransfer())
            assert {node["node_id"] for node in go["nodes"]} == {"node-2", "node-3"}
            assert len(made["node-1"].held) == 9
        finally:
            second.stop()
