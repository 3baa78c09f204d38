"""The gateway's upkeep against nodes over the wire: what goes, what stays, what comes back, and what is said of it."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.audit import log_path
from tests.gateway.kit import GIB, TRANSFERS, Gateway, Identities, claim, get, images, post, upload
from tests.repair.test_repairer import beating, holders, repairs, store, wait
from tests.upkeep.kit import Keepers, running
from transfer.api import Announcement, Commit, Offer, OpenTransfer, Receipts
from transfer.membership import Revoke
from transfer.merkle import merkle_root
from transfer.protocol.messages import TRASH_OBJECTS_MAX
from transfer.upkeep import Drain, SomeTrash


def hold(nodes: Keepers, node_id: str, *sent: Any) -> list[bytes]:
    """Have a node hold objects of which the gateway was told nothing."""
    for image in sent:
        nodes[node_id].held[bytes.fromhex(image.object_id)] = image.receipt(node_id)
    return [bytes.fromhex(image.object_id) for image in sent]


def leave_uncommitted(gateway: Gateway, nodes: Keepers, *sent: Any) -> str:
    """Send objects to node-1 in a transfer that stays open; return its id."""
    client = gateway.client("ws-1")
    transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
    post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=[image.offered() for image in sent]))
    hold(nodes, "node-1", *sent)
    receipts = [image.receipt("node-1") for image in sent]
    post(client, f"{TRANSFERS}/{transfer_id}/receipts", Receipts(receipts=[nodes["node-1"].sign(receipts)]))
    return str(transfer_id)


def node_statuses(gateway: Gateway) -> list[dict[str, Any]]:
    return get(gateway.client("op-1"), "/api/v1/status")["nodes"]


def audited(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    lines = log_path(Path(gateway.config.data)).read_bytes().splitlines()
    found = [msgspec.json.decode(line[line.index(b"{") :]) for line in lines]
    return [entry for entry in found if entry["event"] == event]


def test_an_orphan_that_the_catalogue_heard_of_goes_aside_and_is_deleted_in_time(
    identities: Identities, tmp_path: Path
) -> None:
    """Not before its transfer was given up, because nothing happened in it for long."""
    with running(identities, tmp_path, trash_s=1, transfer_idle_s=1) as (gateway, nodes):
        store(gateway, nodes, "node-1", "node-2")
        strays = images(3, seed="stray")
        ids = {bytes.fromhex(image.object_id) for image in strays}
        leave_uncommitted(gateway, nodes, *strays)
        wait(lambda: nodes["node-1"].deleted == ids)
        assert len(nodes["node-1"].held) == 4
        assert all(held == ["node-1", "node-2"] for held in holders(gateway).values())
        (ended,) = audited(gateway, "transfer_abandoned")
        entries = audited(gateway, "copies_put_aside")  # two, where a second began between two pages of the list
        assert ended["n"] < min(entry["n"] for entry in entries)
        assert {(entry["by"], entry["about"], entry["reason"]) for entry in entries} == {
            ("gateway", "node-1", "orphan")
        }
        assert sum(entry["objects"] for entry in entries) == 3
        assert sum(entry["objects"] for entry in audited(gateway, "copies_deleted")) == 3


@pytest.mark.campaign  # `make upkeep`
def test_what_is_unknown_to_the_catalogue_goes_by_an_operator_s_word_alone(
    identities: Identities, tmp_path: Path
) -> None:
    """Its own loss may be the reason. What was put aside by mistake comes back; deleted it is by another word."""
    with running(identities, tmp_path, trash_s=3600) as (gateway, nodes):
        store(gateway, nodes, "node-1", "node-2")
        ids = hold(nodes, "node-3", *images(3, seed="stray"))
        wait(lambda: repairs(gateway)["orphan_objects"] == 3)
        time.sleep(0.7)
        assert nodes["node-3"].aside == {}
        operator, administrator = gateway.client("op-1"), gateway.client("admin-1")
        assert post(operator, "/api/v1/trash/orphans", None)["objects"] == 3
        assert nodes["node-3"].aside.keys() == set(ids)
        page = get(operator, "/api/v1/trash", node="node-3")
        assert [entry["reason"] for entry in page["entries"]] == ["orphan", "orphan"]
        rest = get(operator, "/api/v1/trash", node="node-3", after=page["next"])
        assert (len(rest["entries"]), rest["next"]) == (1, None)
        some = SomeTrash(node_id="node-3", object_ids=[ids[0].hex()])
        assert post(operator, "/api/v1/trash/undo", some)["objects"] == 1
        assert ids[0] in nodes["node-3"].held
        assert operator.post("/api/v1/trash/purge", content=msgspec.json.encode(some)).status_code == 403
        every = SomeTrash(node_id="node-3", object_ids=[one.hex() for one in ids])
        assert post(administrator, "/api/v1/trash/purge", every)["objects"] == 2
        assert nodes["node-3"].deleted == set(ids[1:])
        assert [entry["by"] for entry in audited(gateway, "copies_put_back")] == ["op-1"]
        assert {entry["by"] for entry in audited(gateway, "copies_deleted")} == {"admin-1"}


def test_too_many_orphans_wait_for_somebody(identities: Identities, tmp_path: Path) -> None:
    with running(identities, tmp_path, orphan_share_max=0.05, orphan_grace_s=1, transfer_idle_s=1) as (gateway, nodes):
        store(gateway, nodes, "node-1", "node-2")
        leave_uncommitted(gateway, nodes, *images(4, seed="stray"))
        wait(lambda: repairs(gateway)["orphans_wait"])
        time.sleep(0.5)
        assert nodes["node-1"].aside == {}
        wait(lambda: post(gateway.client("op-1"), "/api/v1/trash/orphans", None)["objects"] == 4)


def test_a_copy_too_many_goes_aside_when_the_others_were_read_again(identities: Identities, tmp_path: Path) -> None:
    with running(identities, tmp_path, trash_s=1) as (gateway, nodes):
        ids = store(gateway, nodes, "node-1", "node-2", "node-3")
        wait(lambda: all(len(held) == 2 for held in holders(gateway).values()))
        wait(lambda: sum(len(node.deleted) for node in nodes.values()) == len(ids))
        for one in ids:
            here = {name for name, node in nodes.items() if bytes.fromhex(one) in node.held}
            assert here == set(holders(gateway)[one])
        assert repairs(gateway)["damaged_total"] == 0


def test_nothing_goes_where_a_copy_that_stays_does_not_prove_sound(identities: Identities, tmp_path: Path) -> None:
    with running(identities, tmp_path) as (gateway, nodes):
        for node in nodes.values():
            node.rotten = {bytes.fromhex(image.object_id) for image in images(1)}
        ids = store(gateway, nodes, "node-1", "node-2", "node-3")
        wait(lambda: sum(len(held) == 2 for held in holders(gateway).values()) == len(ids) - 1)
        time.sleep(0.5)
        assert holders(gateway)[ids[0]] == ["node-1", "node-2", "node-3"]


def test_a_copy_that_is_aside_comes_back_when_its_object_is_short_again(identities: Identities, tmp_path: Path) -> None:
    """Both others are damaged at once: the only sound copy was put aside, and nobody has to do anything."""
    with running(identities, tmp_path, trash_s=3600) as (gateway, nodes):
        (one,) = store(gateway, nodes, "node-1", "node-2", "node-3", count=1)
        key = bytes.fromhex(one)
        wait(lambda: any(key in node.aside for node in nodes.values()))
        keeper = next(name for name, node in nodes.items() if key in node.aside)
        for name, node in nodes.items():
            if name != keeper:
                node.quarantined.add(key)
                del node.held[key]
                node.beat(gateway)
        wait(lambda: keeper in holders(gateway)[one])
        wait(lambda: len(holders(gateway)[one]) == 2)
        assert repairs(gateway)["lost_objects"] == 0


def test_a_receipt_of_a_copy_that_was_put_aside_counts_when_the_node_has_put_it_back(
    identities: Identities, tmp_path: Path
) -> None:
    """A sender kept its receipts for long. Committed is only what is in its place."""
    with running(identities, tmp_path, trash_s=3600, transfer_idle_s=0.1) as (gateway, nodes):
        store(gateway, nodes, "node-1", "node-2")
        strays = images(3, seed="stray")
        ids = {bytes.fromhex(image.object_id) for image in strays}
        leave_uncommitted(gateway, nodes, *strays)
        wait(lambda: nodes["node-1"].aside.keys() == ids)
        gone = bytes.fromhex(strays[0].object_id)
        del nodes["node-1"].aside[gone]  # deleted for good meanwhile
        client = gateway.client("ws-2")
        transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
        wanted = post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=[one.offered() for one in strays]))
        assert wanted["stored"] == []
        old = nodes["node-1"].sign([image.receipt("node-1") for image in strays])
        assert post(client, f"{TRANSFERS}/{transfer_id}/receipts", Receipts(receipts=[old]))["objects"] == 2
        assert ids - {gone} <= nodes["node-1"].held.keys()
        whole = Commit(objects=3, merkle_root=merkle_root(sorted(image.object_id for image in strays)), receipts=[old])
        path = f"{TRANSFERS}/{transfer_id}/commit"
        assert client.post(path, content=msgspec.json.encode(whole)).status_code == 409
        hold(nodes, "node-1", strays[0])  # sent once more
        assert post(client, path, whole)["objects"] == 3


def test_more_copies_are_recalled_than_one_request_may_name(identities: Identities, tmp_path: Path) -> None:
    """Else a sender with so many receipts at once would be told to send again for ever."""
    with running(identities, tmp_path, trash_s=3600, transfer_idle_s=0.1) as (gateway, nodes):
        strays = images(TRASH_OBJECTS_MAX + 1, seed="stray")
        leave_uncommitted(gateway, nodes, *strays[:200])
        leave_uncommitted(gateway, nodes, *strays[200:])
        wait(lambda: len(nodes["node-1"].aside) == len(strays))
        client = gateway.client("ws-2")
        transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
        post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=[one.offered() for one in strays]))
        old = [nodes["node-1"].sign([one.receipt("node-1") for one in some]) for some in (strays[:200], strays[200:])]
        answer = post(client, f"{TRANSFERS}/{transfer_id}/receipts", Receipts(receipts=old))
        assert answer["objects"] == len(strays)


@pytest.mark.campaign  # `make upkeep`
def test_a_node_that_did_not_answer_is_left_with_a_copy_too_many_and_nothing_is_lost(
    identities: Identities, tmp_path: Path
) -> None:
    with running(identities, tmp_path) as (gateway, nodes):
        for node in nodes.values():
            node.answers_discards = False
        ids = store(gateway, nodes, "node-1", "node-2", "node-3")
        time.sleep(0.7)
        assert all(len(node.held) == len(ids) for node in nodes.values())
        for node in nodes.values():
            node.answers_discards = True
        wait(lambda: sum(len(node.held) for node in nodes.values()) == 2 * len(ids))
        wait(lambda: all(len(held) == 2 for held in holders(gateway).values()))
        assert repairs(gateway)["damaged_total"] == 0


@pytest.mark.campaign  # `make upkeep`
def test_full_nodes_give_to_emptier_ones(identities: Identities, tmp_path: Path) -> None:
    """By what their heartbeats say of their room; each copy is made before the old one goes."""
    with running(identities, tmp_path, balance_spread=0.2, trash_s=3600) as (gateway, nodes):
        store(gateway, nodes, "node-1", "node-2", count=8)
        for name, node in nodes.items():
            used = 0 if name == "node-3" else GIB
            node.beat(gateway, used_bytes=used, free_bytes=2 * GIB - used)
        wait(lambda: sum(len(node.aside) for node in nodes.values()) == 8)
        assert all(len(held) == 2 and "node-3" in held for held in holders(gateway).values())
        assert (repairs(gateway)["moved_total"], repairs(gateway)["repaired_total"]) == (8, 0)
        aside = {name: sum(one.receipt.stored_bytes for one in node.aside.values()) for name, node in nodes.items()}
        wait(lambda: {node["node_id"]: node["trash_bytes"] for node in node_statuses(gateway)} == aside)
        assert repairs(gateway)["trash_bytes"] == sum(aside.values()) > aside["node-3"] == 0


@pytest.mark.parametrize("undo", [False, True])
def test_a_node_drains_by_a_command_and_says_when_it_may_go(identities: Identities, tmp_path: Path, undo: bool) -> None:
    with running(identities, tmp_path, ticket_lifetime_s=0.5, repair_bytes_per_s=1 << 30) as (gateway, nodes):
        single = images(5, seed="single")
        hold(nodes, "node-1", *single)
        upload(gateway.client("ws-1"), single, nodes["node-1"])
        open_one = images(1, seed="open")
        transfer_id = leave_uncommitted(gateway, nodes, *open_one)
        operator = gateway.client("op-1")
        assert operator.post("/api/v1/drains", content=b'{"node_id": "node-9"}').status_code == 404
        post(operator, "/api/v1/drains", Drain(node_id="node-1"))
        if undo:
            answer = post(operator, "/api/v1/drains", Drain(node_id="node-1", undo=True))
            assert answer == {"drains": []}
            assert repairs(gateway)["draining_nodes"] == []
            return
        wait(lambda: repairs(gateway)["drains"][0]["left_objects"] == 0)
        (drain,) = repairs(gateway)["drains"]
        assert (drain["claimed_objects"], drain["safe"]) == (1, False)
        assert all(len(set(held) - {"node-1"}) == 1 for held in holders(gateway).values())
        root = merkle_root([open_one[0].object_id])
        post(gateway.client("ws-1"), f"{TRANSFERS}/{transfer_id}/commit", Commit(objects=1, merkle_root=root))
        wait(lambda: repairs(gateway)["drains"][0]["safe"])
        go = post(gateway.client("ws-1"), TRANSFERS, OpenTransfer())
        assert "node-1" not in {node["node_id"] for node in go["nodes"]}
        assert len(nodes["node-1"].held) == 6, "nothing is taken away from it"
        assert [entry["about"] for entry in audited(gateway, "drain_begun")] == ["node-1"]
        post(operator, "/api/v1/drains", Drain(node_id="node-2"))
        last = operator.post("/api/v1/drains", content=b'{"node_id": "node-3"}')
        assert (last.status_code, "last node" in last.json()["message"]) == (409, True)


def test_what_only_a_node_has_that_may_be_switched_off_is_sent_again(identities: Identities, tmp_path: Path) -> None:
    """It drains, it is safe to switch off, and somebody comes with what it has of a transfer that was given up."""
    grace = {"transfer_idle_s": 0.1, "orphan_grace_s": 3600}
    with running(identities, tmp_path, ticket_lifetime_s=0.5, **grace) as (gateway, nodes):
        (stray,) = sent = images(1, seed="stray")
        leave_uncommitted(gateway, nodes, stray)
        wait(lambda: audited(gateway, "transfer_abandoned"))
        post(gateway.client("op-1"), "/api/v1/drains", Drain(node_id="node-1"))
        wait(lambda: repairs(gateway)["drains"][0]["safe"])
        client = gateway.client("ws-1")
        path = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer())['transfer_id']}"
        assert post(client, f"{path}/offer", Offer(objects=[stray.offered()]))["stored"] == []
        late = nodes["node-1"].sign([stray.receipt("node-1")])  # by a ticket that has ended since
        assert post(client, f"{path}/receipts", Receipts(receipts=[late]))["objects"] == 0
        hold(nodes, "node-2", stray)
        again = nodes["node-2"].sign([stray.receipt("node-2")])
        assert post(client, f"{path}/receipts", Receipts(receipts=[again]))["objects"] == 1
        post(client, f"{path}/commit", claim(sent))
        assert repairs(gateway)["drains"][0]["safe"]


def test_a_node_that_took_objects_by_the_paper_s_protocol_is_not_safe_to_switch_off(
    identities: Identities, tmp_path: Path
) -> None:
    """Nothing keeps its clients from it. What it announces is shown at once, and copied before it may go."""
    with running(identities, tmp_path, ticket_lifetime_s=0.5) as (gateway, nodes):
        post(gateway.client("op-1"), "/api/v1/drains", Drain(node_id="node-1"))
        wait(lambda: repairs(gateway)["drains"][0]["safe"])
        for name in ("node-2", "node-3"):
            nodes[name].manner.refuses_copies = "busy"
        (stray,) = images(1, seed="stray")
        hold(nodes, "node-1", stray)
        body = Announcement(receipts=[nodes["node-1"].sign([stray.receipt("node-1")])], names=[])
        post(gateway.client("node-1"), "/api/v1/announcements", body)
        assert not repairs(gateway)["drains"][0]["safe"]
        wait(lambda: repairs(gateway)["drains"][0]["left_objects"] == 1)
        assert not repairs(gateway)["drains"][0]["safe"]


def test_what_is_announced_gets_as_many_replicas_as_others_do(identities: Identities, tmp_path: Path) -> None:
    """The paper's protocol says nothing of replicas, so its client is a sender that says nothing."""
    with running(identities, tmp_path, default_replicas=2, repair_every_s=3600) as (gateway, nodes):
        wait(lambda: repairs(gateway)["short_objects"] == 0)
        (one,) = images(1)
        hold(nodes, "node-1", one)
        body = Announcement(receipts=[nodes["node-1"].sign([one.receipt("node-1")])], names=[])
        receipt = post(gateway.client("node-1"), "/api/v1/announcements", body)
        wait(lambda: len(holders(gateway)[one.object_id]) == 2)
        assert post(gateway.client("node-1"), "/api/v1/announcements", body) == receipt


def test_an_announcement_of_a_copy_that_is_damaged_is_refused_and_one_of_the_others_taken(
    identities: Identities, tmp_path: Path
) -> None:
    with running(identities, tmp_path) as (gateway, nodes):
        node, announced = nodes["node-1"], images(2)
        hold(nodes, "node-1", announced[0])
        node.quarantined.add(bytes.fromhex(announced[1].object_id))
        node.beat(gateway)
        client = gateway.client("node-1")

        def announce(*some: Any) -> int:
            body = Announcement(receipts=[node.sign([one.receipt("node-1") for one in some])], names=[])
            return client.post("/api/v1/announcements", content=msgspec.json.encode(body)).status_code

        wait(lambda: any("repair" in ticket.rights for ticket in node.tickets))
        time.sleep(0.3)  # its word of the damage is in the catalogue
        assert [announce(*announced), announce(announced[1]), announce(announced[0])] == [409, 409, 200]
        assert holders(gateway) == {announced[0].object_id: ["node-1"]}


@pytest.mark.parametrize("how", ["silent", "revoked"])
def test_what_only_a_node_had_that_is_gone_is_sent_again(identities: Identities, tmp_path: Path, how: str) -> None:
    """Whoever has the object still is not told that it is stored: one that is gone for good would take it along."""
    quick = {"silent_after_s": 1.0, "replica_grace_s": 0.0} if how == "silent" else {}
    with running(identities, tmp_path, **quick) as (gateway, nodes), beating(gateway, nodes):
        kept, lost = images(2)
        client = gateway.client("ws-1")
        for image, name in ((lost, "node-1"), (kept, "node-2")):
            hold(nodes, name, image)
            upload(client, [image], nodes[name])
        offer = Offer(objects=[kept.offered(), lost.offered()])
        path = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer())['transfer_id']}"
        assert len(post(client, f"{path}/offer", offer)["stored"]) == 2
        nodes["node-1"].mute = True
        if how == "revoked":
            post(gateway.client("admin-1"), "/api/v1/revocations", Revoke(name="node-1"))
            refused = client.post(f"{path}/commit", content=msgspec.json.encode(claim([kept, lost])))
            assert refused.status_code == 409
        wait(lambda: not offered_as_stored(gateway, lost))
        assert post(client, f"{path}/offer", offer)["stored"] == [kept.object_id], "nor where it was told so before"
        assert offered_as_stored(gateway, kept)


def offered_as_stored(gateway: Gateway, image: Any) -> bool:
    """Offer an object in a transfer of its own; tell whether it need not be sent."""
    client = gateway.client("ws-2")
    path = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer())['transfer_id']}"
    return post(client, f"{path}/offer", Offer(objects=[image.offered()]))["stored"] == [image.object_id]


def test_a_node_that_runs_twice_is_said_and_gets_nothing_new(identities: Identities, tmp_path: Path) -> None:
    with running(identities, tmp_path) as (gateway, nodes):
        store(gateway, nodes, "node-1", "node-2", "node-3")
        for _ in range(4):
            nodes["node-1"].beat(gateway, started_ns=2)
            nodes["node-1"].beat(gateway, started_ns=1)
        wait(lambda: repairs(gateway)["twin_nodes"] == ["node-1"])
        go = post(gateway.client("ws-1"), TRANSFERS, OpenTransfer())
        assert {node["node_id"] for node in go["nodes"]} == {"node-2", "node-3"}


def test_no_copy_goes_while_a_disk_that_was_put_back_is_not_compared(identities: Identities, tmp_path: Path) -> None:
    with running(identities, tmp_path, trash_s=3600) as (gateway, nodes):
        ids = store(gateway, nodes, "node-1", "node-2")
        nodes["node-1"].beat(gateway, running_s=5000)
        time.sleep(0.2)  # some looks
        nodes["node-1"].forges_pages = True
        nodes["node-1"].beat(gateway, running_s=1000)
        time.sleep(0.2)
        nodes["node-3"].held |= {one: nodes["node-2"].held[one] for one in map(bytes.fromhex, ids)}
        wait(lambda: all(len(held) == 3 for held in holders(gateway).values()))
        time.sleep(0.7)  # it would be calm
        assert not any(node.aside for node in nodes.values())
        nodes["node-1"].forges_pages = False
        wait(lambda: sum(len(node.aside) for node in nodes.values()) == len(ids))


def test_a_disk_that_was_put_back_from_a_copy_is_looked_at_at_once(identities: Identities, tmp_path: Path) -> None:
    """It has its id and less running time; what it lacks is missed by a stocktake now, not tomorrow, and made good."""
    with running(identities, tmp_path, stocktake_every_s=3600) as (gateway, nodes):
        ids = store(gateway, nodes, "node-1", "node-2")
        nodes["node-1"].beat(gateway, running_s=5000)
        time.sleep(0.2)  # some looks
        for one in ids[1:]:
            del nodes["node-1"].held[bytes.fromhex(one)]
        nodes["node-1"].beat(gateway, running_s=4900)  # a minute is kept at most after a kill
        time.sleep(0.3)
        assert repairs(gateway)["damaged_total"] == 0
        nodes["node-1"].beat(gateway, running_s=1000)
        wait(lambda: repairs(gateway)["damaged_total"] == len(ids) - 1)
        wait(lambda: all(len(held) == 2 for held in holders(gateway).values()))
