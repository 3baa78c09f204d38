"""A disk that is put back from an older copy of itself stands for no promise until a stocktake went through it."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from gateway import repairer, stocktake, transfers
from gateway.damage import holders
from gateway.database import Database
from gateway.disks import not_compared, on_younger_disks
from gateway.liveness import Nodes
from gateway.olddisks import OldDisks
from gateway.receiving import take_disk, take_old_disks
from tests.gateway.kit import NODE_IDS, TRANSFERS, Gateway, Identities, Image, Node, claim, images, post, settings
from transfer.api import Announcement, Offer, Offered, OpenTransfer, Receipts
from transfer.objects import Identity
from transfer.protocol.messages import Check
from transfer.receipts import Receipt, ReceiptBatch
from transfer.tls import Peer

SENDER = Peer("ws-1", "workstation", "0" * 64)
X, Y = b"\1" * 32, b"\2" * 32


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """One whose looks are quick, and that takes stock when it must."""
    monkeypatch.setattr(repairer, "LOOK_S", 0.02)
    monkeypatch.setattr(repairer, "FIRST_STOCKTAKE_S", 0.1)
    monkeypatch.setattr(stocktake, "PAUSE_S", 0.0)
    running = Gateway(identities, config(identities, tmp_path))
    yield running
    running.stop()


def config(identities: Identities, folder: Path) -> Any:
    return settings(identities, folder / "gateway", stocktake_every_s=3600, silent_after_s=3600, check_timeout_s=20)


def open_offered(gateway: Gateway, sent: list[Image], replicas: int = 1) -> str:
    """Return the path of an open transfer that has offered `sent`."""
    client = gateway.client("ws-1")
    path = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer(replicas=replicas))['transfer_id']}"
    post(client, f"{path}/offer", Offer(objects=[image.offered() for image in sent]))
    return path


def pass_on(gateway: Gateway, path: str, node: Node, sent: list[Image], *others: str) -> int:
    """Pass on what the node signs for the transfer; return how many objects are durable."""
    signed = node.sign([image.receipt(node.node_id, *others) for image in sent], path.rpartition("/")[2])
    return int(post(gateway.client("ws-1"), f"{path}/receipts", Receipts(receipts=[signed]))["objects"])


def commit(gateway: Gateway, path: str, sent: list[Image], status: int) -> Any:
    return post(gateway.client("ws-1"), f"{path}/commit", claim(sent), status)


def stored(gateway: Gateway, *sent: Image) -> list[str]:
    """Offer objects in another sender's transfer of its own; return those that need not be sent."""
    client = gateway.client("ws-2")
    wish = OpenTransfer(offered=[image.offered() for image in sent])
    found: list[str] = post(client, TRANSFERS, wish).get("stored", [])
    return found


def hold(node: Node, sent: list[Image]) -> None:
    node.held |= {bytes.fromhex(image.object_id): image.receipt(node.node_id) for image in sent}


def targets(gateway: Gateway) -> set[str]:
    """Return the nodes to which a sender is sent."""
    return {node["node_id"] for node in post(gateway.client("ws-2"), TRANSFERS, OpenTransfer())["nodes"]}


def wait(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def put_back(gateway: Gateway, node: Node, *lost: Image, compared: bool) -> None:
    """Have a node's disk be what it was before; a stocktake has gone through it, or does not get through."""
    node.beat(gateway, running_s=90_000)
    time.sleep(0.3)  # some looks
    node.forges_pages = True
    for image in lost:
        del node.held[bytes.fromhex(image.object_id)]
    node.beat(gateway, running_s=80_000)
    wait(lambda: node.node_id not in targets(gateway))
    if compared:
        let_compare(gateway, node)


def let_compare(gateway: Gateway, node: Node) -> None:
    node.forges_pages = False
    wait(lambda: node.node_id in targets(gateway))


def test_what_is_on_that_disk_alone_is_no_more_committed_and_sent_again(gateway: Gateway, nodes: list[Node]) -> None:
    lost, safe = images(1, seed="lost"), images(1, seed="safe")
    path, other = open_offered(gateway, lost), open_offered(gateway, safe)
    hold(nodes[0], lost)
    hold(nodes[1], safe)
    assert pass_on(gateway, path, nodes[0], lost) == 1
    assert pass_on(gateway, other, nodes[1], safe) == 1
    assert stored(gateway, *lost, *safe) == [lost[0].object_id, safe[0].object_id]
    put_back(gateway, nodes[0], *lost, compared=False)
    assert stored(gateway, *lost, *safe) == [safe[0].object_id]
    assert commit(gateway, path, lost, 409)["code"] == "conflict"
    assert commit(gateway, other, safe, 200)["objects"] == 1
    assert targets(gateway) == {"node-2", "node-3"}
    let_compare(gateway, nodes[0])
    assert stored(gateway, *lost, *safe) == [safe[0].object_id]
    assert commit(gateway, path, lost, 409)["code"] == "conflict"


def test_what_that_disk_holds_counts_again_once_it_was_compared(gateway: Gateway, nodes: list[Node]) -> None:
    lost, there = images(1, seed="lost"), images(1, seed="there")
    path = open_offered(gateway, [*lost, *there])
    hold(nodes[0], [*lost, *there])
    assert pass_on(gateway, path, nodes[0], [*lost, *there]) == 2
    put_back(gateway, nodes[0], *lost, compared=False)
    assert stored(gateway, *lost, *there) == []
    let_compare(gateway, nodes[0])
    assert stored(gateway, *lost, *there) == [there[0].object_id]
    offer = Offer(objects=[image.offered() for image in [*lost, *there]])
    assert post(gateway.client("ws-1"), f"{path}/offer", offer)["stored"] == [there[0].object_id]
    assert commit(gateway, path, there, 200)["objects"] == 1


@pytest.mark.parametrize(("others", "status"), [(2, 200), (1, 409)])
def test_with_replicas_the_other_holders_must_be_as_many_as_are_wished(
    gateway: Gateway, nodes: list[Node], others: int, status: int
) -> None:
    sent = images(2)
    path = open_offered(gateway, sent, replicas=2)
    for node in nodes[: 1 + others]:
        hold(node, sent)
    assert pass_on(gateway, path, nodes[0], sent, *NODE_IDS[1 : 1 + others]) == 2
    put_back(gateway, nodes[0], *sent, compared=False)
    commit(gateway, path, sent, status)


@pytest.mark.parametrize("signer", [0, 1])
def test_a_receipt_of_before_counts_when_the_node_signs_it_again(
    gateway: Gateway, nodes: list[Node], signer: int
) -> None:
    """Its own, or another node's that names it; also with the commit."""
    sent = images(3)
    path = open_offered(gateway, sent, replicas=2)
    others = [node_id for node_id in NODE_IDS[:2] if node_id != nodes[signer].node_id]
    hold(nodes[0], sent[:2])
    hold(nodes[1], sent)
    put_back(gateway, nodes[0], compared=True)
    assert pass_on(gateway, path, nodes[signer], sent[1:], *others) == 1
    assert any(isinstance(asked, Check) for asked in nodes[0].asked)
    signed = nodes[signer].sign([image.receipt(*NODE_IDS[:2]) for image in sent], path.rpartition("/")[2])
    refused = msgspec.structs.replace(claim(sent), receipts=[signed])
    post(gateway.client("ws-1"), f"{path}/commit", refused, 409)
    post(gateway.client("ws-1"), f"{path}/commit", msgspec.structs.replace(claim(sent[:2]), receipts=[signed]))


def test_a_receipt_of_a_transfer_that_was_opened_since_counts_as_it_is(gateway: Gateway, nodes: list[Node]) -> None:
    """But not until the stocktake is through, since what it names on the disk is not known to be there."""
    sent = images(2)
    put_back(gateway, nodes[0], compared=False)
    hold(nodes[0], sent)
    path = open_offered(gateway, sent)
    assert pass_on(gateway, path, nodes[0], sent) == 0
    let_compare(gateway, nodes[0])
    assert pass_on(gateway, path, nodes[0], sent) == 2
    assert not any(isinstance(asked, Check) for asked in nodes[0].asked)
    commit(gateway, path, sent, 200)


def test_an_answer_from_before_the_notice_counts_no_more(
    gateway: Gateway, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node had the object when it was asked; the disk is put back and compared while the answer is on its way."""
    sent = images(1)
    hold(nodes[0], sent)
    open_offered(gateway, sent)
    answer = nodes[0]._answer

    def late(frame: Any, *others: Any) -> bytes:
        signed = answer(frame, *others)
        if isinstance(frame, Check) and nodes[0].held:
            nodes[0].held.clear()
            put_back(gateway, nodes[0], compared=False)
            wait(lambda: count(gateway) == 1)
            nodes[0].forges_pages = False
            wait(lambda: count(gateway) == 0)
        return signed

    monkeypatch.setattr(nodes[0], "_answer", late)
    assert stored(gateway, *sent) == []
    assert not nodes[0].held
    assert stored(gateway, *sent) == []


def test_a_node_announces_again_when_its_disk_was_compared(gateway: Gateway, nodes: list[Node]) -> None:
    sent = images(2)
    hold(nodes[0], sent)
    body = Announcement(receipts=[nodes[0].sign([image.receipt("node-1") for image in sent])], names=[])
    put_back(gateway, nodes[0], compared=False)
    assert post(gateway.client("node-1"), "/api/v1/announcements", body, 503)["code"] == "busy"
    let_compare(gateway, nodes[0])
    nodes[0].held.clear()
    assert post(gateway.client("node-1"), "/api/v1/announcements", body, 409)["code"] == "conflict"
    hold(nodes[0], sent)
    assert post(gateway.client("node-1"), "/api/v1/announcements", body)["objects"] == 2


def test_senders_are_told_to_wait_where_no_other_node_is_left(gateway: Gateway, nodes: list[Node]) -> None:
    put_back(gateway, nodes[0], compared=False)
    refused = post(gateway.client("ws-1"), TRANSFERS, OpenTransfer(replicas=3), 503)
    assert "compared first" in refused["message"]


def test_a_restart_of_the_gateway_does_not_end_it(
    gateway: Gateway, nodes: list[Node], identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stocktake begins as soon as the node is heard."""
    sent = images(1)
    path = open_offered(gateway, sent)
    hold(nodes[0], sent)
    assert pass_on(gateway, path, nodes[0], sent) == 1
    put_back(gateway, nodes[0], *sent, compared=False)
    wait(lambda: count(gateway) == 1)
    gateway.stop()
    monkeypatch.setattr(repairer, "FIRST_STOCKTAKE_S", 3600.0)
    again = Gateway(identities, config(identities, tmp_path))
    try:
        nodes[1].beat(again)
        assert stored(again, *sent) == []
        nodes[0].forges_pages = False
        nodes[0].beat(again, running_s=80_000)
        wait(lambda: "node-1" in targets(again))
        assert count(again) == 0
        assert stored(again, *sent) == []
    finally:
        again.stop()


def count(gateway: Gateway) -> int:
    """Return of how many nodes the catalogue says that they are to be compared."""
    query = "SELECT count(*) FROM meta WHERE key LIKE 'disk_not_compared:%'"
    with contextlib.closing(sqlite3.connect(f"file:{gateway.config.database}?mode=ro", uri=True)) as link:
        found: int = link.execute(query).fetchone()[0]
    return found


@pytest.mark.parametrize("running_s", [89_990, 90_500])  # killed, or stopped in order
def test_nothing_changes_for_a_node_that_was_started_again(gateway: Gateway, nodes: list[Node], running_s: int) -> None:
    sent = images(2)
    hold(nodes[0], sent)
    path, late = open_offered(gateway, sent[:1]), open_offered(gateway, sent[1:])
    nodes[0].beat(gateway, running_s=90_000)
    assert pass_on(gateway, path, nodes[0], sent[:1]) == 1
    time.sleep(0.3)  # some looks
    nodes[0].beat(gateway, started_ns=2, running_s=running_s)
    time.sleep(0.3)
    assert pass_on(gateway, late, nodes[0], sent[1:]) == 1
    assert stored(gateway, *sent) == [image.object_id for image in sent]
    commit(gateway, path, sent[:1], 200)
    commit(gateway, late, sent[1:], 200)
    assert targets(gateway) == set(NODE_IDS)
    assert not any(isinstance(asked, Check) for asked in nodes[0].asked)


Write = Callable[[Callable[[Connection], Any]], Any]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "catalogue.db")
    yield opened
    opened.close()


@pytest.fixture
def write(database: Database) -> Write:
    return lambda unit: asyncio.run(database.write(unit))


def batch(transfer_id: str, *ids: bytes, node_ids: tuple[str, ...] = ("node-1",)) -> ReceiptBatch:
    found = [Receipt(one, 9, 9, "raw", list(node_ids), Identity(any_file=True)) for one in ids]
    return ReceiptBatch(node_ids[0], "disk", transfer_id, found)


def open_with(write: Write, transfer_id: str, *ids: bytes) -> None:
    offers = [Offered(object_id=one.hex(), size_bytes=9) for one in ids]
    write(lambda link: transfers.open_transfer(link, transfer_id, OpenTransfer(), SENDER, open_max=9))
    write(lambda link: transfers.offer(link, transfer_id, SENDER, offers))


def take(write: Write, transfer_id: str, sent: ReceiptBatch, *checked: ReceiptBatch) -> int:
    def unit(link: Connection) -> int:
        return transfers.take_receipts(link, transfer_id, SENDER, [sent], checked=checked)

    return int(write(unit))


def test_the_catalogue_takes_the_mark_and_asks_for_another_word(write: Write) -> None:
    write(lambda link: take_disk(link, "node-1", "disk"))
    open_with(write, "t", X, Y)
    assert take(write, "t", batch("t", X)) == 1
    assert take(write, "t", batch("t", Y, node_ids=("node-2", "node-1"))) == 2
    write(lambda link: take_old_disks(link, ["node-1"], {"node-2"}))
    assert write(lambda link: transfers.find(link, "t")).durable_objects == 1  # Y, that the other holds
    for one in (batch("t", X, Y), batch("", X, Y), batch("t", X, Y, node_ids=("node-2", "node-1"))):
        assert write(lambda link, one=one: on_younger_disks(link, [one])) == {"node-1": [X, Y]}  # type: ignore[misc]  # mypy takes no default of a lambda
    assert write(lambda link: on_younger_disks(link, [batch("t", X, node_ids=("node-2",))])) == {}
    open_with(write, "u", X)
    assert write(lambda link: on_younger_disks(link, [batch("u", X)])) == {}


def test_of_a_late_receipt_the_catalogue_keeps_what_it_says_of_others(write: Write) -> None:
    write(lambda link: take_disk(link, "node-1", "disk"))
    open_with(write, "t", X, Y)
    write(lambda link: take_old_disks(link, ["node-1"], {"node-2"}))
    late = batch("t", X, node_ids=("node-1", "node-2"))
    assert take(write, "t", late) == 1
    assert take(write, "t", batch("t", Y)) == 1
    assert write(lambda link: holders(link, [X, Y])) == {X: {"node-2"}}
    assert take(write, "t", batch("t", Y), batch("gateway", Y)) == 2
    assert write(lambda link: holders(link, [X, Y])) == {X: {"node-2"}, Y: {"node-1"}}


def test_only_a_stocktake_that_began_after_the_last_notice_was_written_ends_it(database: Database) -> None:
    asyncio.run(notice_twice(database))


async def notice_twice(database: Database) -> None:
    old_disks = OldDisks(database, Nodes(["node-1", "node-2"], 10))
    old_disks.notice("node-1")
    assert old_disks.node_ids == {"node-1"}
    await old_disks.compared("node-1", old_disks.written("node-1"))
    assert old_disks.node_ids == {"node-1"}, "the notice was not written when it began"
    assert await old_disks.write()
    began = old_disks.written("node-1")
    old_disks.notice("node-1")
    await old_disks.compared("node-1", began)
    assert old_disks.node_ids == {"node-1"}, "it was put back once more meanwhile"
    assert await old_disks.write()
    await old_disks.compared("node-1", began)
    assert not await old_disks.write()
    again = OldDisks(database, Nodes(["node-1", "node-2"], 10))
    await again.read()
    assert again.node_ids == {"node-1"}
    assert not await again.write()
    for each in (again, old_disks):
        await each.compared("node-1", each.written("node-1"))
        assert each.node_ids == set()
    assert await database.read(not_compared) == set()
