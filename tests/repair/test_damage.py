"""What the catalogue makes of nodes' words about copies: counted once, told once, and never more than was said."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, select, update

from gateway import commits, transfers
from gateway.asides import doubted, put_aside, take_back, were_put_aside
from gateway.damage import forget_made_good, holders, note_copied, note_found, note_gone, open_damage, read_repairs
from gateway.database import Database
from gateway.disks import note_disk, on_younger_disks
from gateway.events import list_events
from gateway.receiving import record, take_disk
from gateway.repairplan import Shortage
from gateway.schema import object_
from gateway.shortages import PAGE_OBJECTS, read_shortages
from gateway.wishes import wish_each, wish_selected
from transfer.api import Commit, Offered, OpenTransfer
from transfer.errors import ConflictError
from transfer.merkle import merkle_root
from transfer.objects import Identity, object_id
from transfer.receipts import Receipt, ReceiptBatch
from transfer.tls import Peer

Write = Callable[[Callable[[Connection], Any]], Any]
BOTH = {"node-1", "node-2"}
SENDER, KEY = Peer("ws-1", "workstation", "0" * 64), Ed25519PrivateKey.generate()
A, B, C, D = (bytes([number]) * 32 for number in (1, 2, 3, 4))


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Run a unit of work on a catalogue with three objects on node-1 and node-2."""
    database = Database(tmp_path / "catalogue.db")
    with asyncio.Runner() as runner:

        def run(unit: Callable[[Connection], Any]) -> Any:
            return runner.run(database.write(unit))

        run(lambda link: note_disk(link, "node-1", "disk-1"))
        run(lambda link: note_disk(link, "node-2", "disk-2"))
        run(lambda link: record(link, [batch("node-1", "disk-1", A, B, C), batch("node-2", "disk-2", A, B, C)]))
        yield run
        database.close()


def batch(node_id: str, disk: str, *ids: bytes, others: tuple[str, ...] = ()) -> ReceiptBatch:
    return ReceiptBatch(node_id, disk, "", [Receipt(one, 9, 9, "raw", [node_id, *others], Identity()) for one in ids])


def kinds(link: Connection) -> list[tuple[str, list[str]]]:
    return [(event.kind, event.body["object_ids"]) for event in list_events(link, 0, 100).events]  # type: ignore[misc]  # JSON


def test_a_copy_that_is_gone_is_forgotten_and_told_once(write: Write) -> None:
    assert write(lambda link: note_gone(link, "node-1", "disk-1", [A, B])) == 2
    assert write(lambda link: note_gone(link, "node-1", "disk-1", [A, B])) == 0
    assert write(lambda link: holders(link, [A, B, C])) == {A: {"node-2"}, B: {"node-2"}, C: {"node-1", "node-2"}}
    assert write(kinds) == [("object damaged", [A.hex(), B.hex()])]
    assert write(lambda link: open_damage(link, 10)) == {"node-1": [A, B]}
    counts = {"damaged_total": 2, "repaired_total": 0, "moved_total": 0, "damaged_objects": 2, "lost_objects": 0}
    assert write(read_repairs) == counts


def test_a_transfer_does_not_commit_what_is_damaged_before_its_commit(write: Write) -> None:
    """It is told to send again, and then commits; an object that keeps its wished replica is not in question."""
    data = [b"damaged", b"fine"]
    ids = [object_id(one) for one in data]
    made = [
        Receipt(bytes.fromhex(one), len(body), 9, "raw", ["node-1"], Identity())
        for one, body in zip(ids, data, strict=True)
    ]
    offers = [Offered(object_id=one, size_bytes=len(body)) for one, body in zip(ids, data, strict=True)]
    receipts = [ReceiptBatch("node-1", "disk-1", "t", made)]
    write(lambda link: transfers.open_transfer(link, "t", OpenTransfer(), SENDER, open_max=9))
    write(lambda link: transfers.offer(link, "t", SENDER, offers))
    assert write(lambda link: transfers.take_receipts(link, "t", SENDER, receipts)) == 2
    write(lambda link: note_gone(link, "node-1", "disk-1", [bytes.fromhex(ids[0])]))
    claim = Commit(objects=2, merkle_root=merkle_root(ids))
    with pytest.raises(ConflictError, match="here 1 are durable"):
        write(lambda link: commits.commit(link, "t", SENDER, claim, KEY))
    again = write(lambda link: transfers.offer(link, "t", SENDER, offers))
    assert again.durable == {bytes.fromhex(ids[1])}
    assert write(lambda link: transfers.take_receipts(link, "t", SENDER, receipts)) == 1  # signed before the damage
    assert write(lambda link: doubted(link, receipts)) == {"node-1": [bytes.fromhex(ids[0])]}
    write(lambda link: take_back(link, receipts))  # the node was asked, and has it in its place
    assert write(lambda link: transfers.take_receipts(link, "t", SENDER, receipts)) == 2
    assert write(lambda link: commits.commit(link, "t", SENDER, claim, KEY))


def test_a_transfer_does_not_commit_what_was_on_a_disk_that_is_replaced_before_its_commit(write: Write) -> None:
    one, other = (Offered(object_id=object_id(data), size_bytes=len(data)) for data in (b"disk gone", b"elsewhere"))
    first = batch("node-1", "disk-1", bytes.fromhex(one.object_id))
    second = batch("node-2", "disk-2", bytes.fromhex(other.object_id))
    write(lambda link: transfers.open_transfer(link, "t", OpenTransfer(), SENDER, open_max=9))
    write(lambda link: transfers.offer(link, "t", SENDER, [one, other]))
    assert write(lambda link: transfers.take_receipts(link, "t", SENDER, [first, second])) == 2
    write(lambda link: take_disk(link, "node-1", "disk-1"))
    assert write(lambda link: transfers.find(link, "t")).durable_objects == 2
    write(lambda link: take_disk(link, "node-1", "disk-new"))
    assert write(lambda link: transfers.find(link, "t")).durable_objects == 1
    claim = Commit(objects=2, merkle_root=merkle_root([one.object_id, other.object_id]))
    with pytest.raises(ConflictError, match="here 1 are durable"):
        write(lambda link: commits.commit(link, "t", SENDER, claim, KEY))
    again = write(lambda link: transfers.offer(link, "t", SENDER, [one, other]))
    assert again.durable == {bytes.fromhex(other.object_id)}


def test_a_receipt_of_before_says_nothing_of_another_node_s_new_disk(write: Write) -> None:
    """It names the node alone, not the disk; so the node is asked. A transfer that was opened since is of this disk."""
    one = Offered(object_id=object_id(b"two disks"), size_bytes=9)
    key = bytes.fromhex(one.object_id)
    both = batch("node-1", "disk-1", key, others=("node-2",))
    of_t, of_u = (msgspec.structs.replace(both, transfer_id=name) for name in ("t", "u"))
    write(lambda link: transfers.open_transfer(link, "t", OpenTransfer(replicas=2), SENDER, open_max=9))
    write(lambda link: transfers.offer(link, "t", SENDER, [one]))
    assert write(lambda link: on_younger_disks(link, [of_t])) == {}
    write(lambda link: take_disk(link, "node-2", "disk-new"))
    assert write(lambda link: on_younger_disks(link, [of_t])) == {"node-2": [key]}
    assert write(lambda link: transfers.take_receipts(link, "t", SENDER, [of_t])) == 0
    assert write(lambda link: holders(link, [key])) == {key: {"node-1"}}
    own = batch("node-2", "disk-new", key)
    assert write(lambda link: transfers.take_receipts(link, "t", SENDER, [of_t, own])) == 1
    write(lambda link: note_gone(link, "node-2", "disk-new", [key]))
    write(lambda link: take_back(link, [own]))
    write(lambda link: transfers.open_transfer(link, "u", OpenTransfer(replicas=2), SENDER, open_max=9))
    write(lambda link: transfers.offer(link, "u", SENDER, [one]))
    assert write(lambda link: on_younger_disks(link, [of_u])) == {}
    assert write(lambda link: transfers.take_receipts(link, "u", SENDER, [of_u])) == 1


def test_a_late_receipt_of_a_replaced_disk_does_not_hide_the_copy_on_the_new_one(write: Write) -> None:
    write(lambda link: take_disk(link, "node-1", "disk-new"))
    write(lambda link: record(link, [batch("node-1", "disk-new", A)]))
    write(lambda link: record(link, [batch("node-1", "disk-1", A, D)]))
    assert write(lambda link: holders(link, [A, B, D])) == {A: BOTH, B: {"node-2"}}
    write(lambda link: take_disk(link, "node-1", "disk-1"))  # the old disk came back
    assert write(lambda link: holders(link, [B, D])) == {B: BOTH, D: {"node-1"}}


def test_a_copy_whose_target_got_another_disk_meanwhile_makes_nothing_good(write: Write) -> None:
    """The source waits for the rest of the copies while the target is started again."""
    write(lambda link: note_disk(link, "node-3", "disk-3"))
    write(lambda link: note_gone(link, "node-1", "disk-1", [A]))
    write(lambda link: take_disk(link, "node-3", "disk-new"))
    copies = batch("node-2", "disk-2", A, others=("node-3",))
    assert write(lambda link: note_copied(link, copies, "node-3", disk="disk-3")) == 0
    assert write(lambda link: holders(link, [A])) == {A: {"node-2"}}
    assert write(read_repairs)["damaged_objects"] == 1
    assert write(lambda link: note_copied(link, copies, "node-3", disk="disk-new")) == 1
    assert write(read_repairs)["damaged_objects"] == 0


def test_a_receipt_that_comes_after_the_word_of_damage_does_not_count(write: Write) -> None:
    """It was on its way, or came twice; of what was put aside on that node nothing changes."""
    late = batch("node-1", "disk-1", D)
    assert write(lambda link: note_gone(link, "node-1", "disk-1", [A, D])) == 1
    write(lambda link: record(link, [batch("node-1", "disk-1", A), late]))
    assert write(lambda link: holders(link, [A, D])) == {A: {"node-2"}}
    assert write(lambda link: were_put_aside(link, "node-1", [A, D])) == set()
    write(lambda link: put_aside(link, "node-1", [B], "orphan"))
    write(lambda link: note_gone(link, "node-1", "disk-1", [B]))
    assert write(lambda link: were_put_aside(link, "node-1", [A, B, D])) == {B}
    write(lambda link: note_found(link, [late]))
    assert write(lambda link: holders(link, [D])) == {D: {"node-1"}}


def test_what_another_disk_or_of_unknown_objects_is_said_changes_nothing(write: Write) -> None:
    assert write(lambda link: note_gone(link, "node-1", "disk-7", [A])) == 0
    assert write(lambda link: note_gone(link, "node-3", "disk-1", [A])) == 0
    assert write(lambda link: note_gone(link, "node-1", "disk-1", [b"\x09" * 32])) == 0
    assert write(lambda link: holders(link, [A])) == {A: {"node-1", "node-2"}}
    assert write(kinds) == []


def test_an_object_without_any_copy_is_lost_until_one_is_found(write: Write) -> None:
    write(lambda link: note_gone(link, "node-1", "disk-1", [A]))
    write(lambda link: note_gone(link, "node-2", "disk-2", [A]))
    assert write(read_repairs)["lost_objects"] == 1
    write(lambda link: note_found(link, [batch("node-2", "disk-2", A)]))
    assert write(lambda link: holders(link, [A])) == {A: {"node-2"}}
    found = write(read_repairs)
    assert (found["lost_objects"], found["damaged_objects"], found["damaged_total"]) == (0, 1, 2)


def test_a_copy_made_elsewhere_makes_the_damage_good(write: Write) -> None:
    write(lambda link: note_gone(link, "node-1", "disk-1", [A]))
    copies = batch("node-2", "disk-2", A, others=("node-3",))
    assert write(lambda link: note_copied(link, copies, "node-3")) == 1
    assert write(lambda link: note_copied(link, copies, "node-3")) == 0
    assert write(lambda link: holders(link, [A])) == {A: {"node-2", "node-3"}}
    counts = {"damaged_total": 1, "repaired_total": 1, "moved_total": 0, "damaged_objects": 0, "lost_objects": 0}
    assert write(read_repairs) == counts
    assert [kind for kind, _ in write(kinds)] == ["object damaged", "object repaired"]


def test_damage_is_not_made_good_by_one_copy_where_two_are_gone(write: Write) -> None:
    write(lambda link: link.execute(update(object_).values(visible=True)).rowcount)
    write(lambda link: record(link, [batch("node-3", "disk-3", A)]))
    write(lambda link: wish_each(link, {A: 3}))
    for node, disk in (("node-1", "disk-1"), ("node-2", "disk-2")):
        write(lambda link, node=node, disk=disk: note_gone(link, node, disk, [A]))
    for target, damaged in (("node-4", 1), ("node-5", 0)):
        copies = batch("node-3", "disk-3", A, others=(target,))
        write(lambda link, copies=copies, target=target: note_copied(link, copies, target))
        assert write(read_repairs)["damaged_objects"] == damaged


def test_damage_is_made_good_by_whoever_stores_the_object_again(write: Write) -> None:
    """A sender whose commit was refused for it sends to other nodes than the one that lost its copy."""
    write(lambda link: link.execute(update(object_).where(object_.c.object_id.in_([A, B])).values(visible=True)))
    write(lambda link: wish_each(link, {A: 2, B: 2, C: 2}))
    write(lambda link: note_gone(link, "node-1", "disk-1", [A, B, C]))
    write(forget_made_good)
    assert write(lambda link: open_damage(link, 10)) == {"node-1": [A, B]}  # nobody was promised C
    write(lambda link: record(link, [batch("node-3", "disk-3", A)]))
    write(forget_made_good)
    assert write(lambda link: open_damage(link, 10)) == {"node-1": [B]}
    write(lambda link: note_gone(link, "node-2", "disk-2", [A]))
    write(lambda link: note_gone(link, "node-3", "disk-3", [A]))
    write(forget_made_good)
    found = write(read_repairs)
    assert (found["damaged_objects"], found["lost_objects"]) == (2, 1)


def test_a_higher_wish_stays(write: Write) -> None:
    mine = select(object_.c.object_id).where(object_.c.object_id.in_([A, B]))
    write(lambda link: wish_selected(link, mine, 1))
    assert write(lambda link: read_shortages(link, b"", set())) == ([], None)
    for replicas in (3, 2):
        write(lambda link, replicas=replicas: wish_selected(link, mine, replicas))
    found, _ = write(lambda link: read_shortages(link, b"", BOTH))
    assert found == [Shortage(one, 9, frozenset({"node-1", "node-2"}), 1) for one in (A, B)]


def test_what_is_on_nodes_that_do_not_count_or_on_replaced_disks_is_short(write: Write) -> None:
    write(lambda link: wish_each(link, {A: 2, B: 2}))
    assert write(lambda link: read_shortages(link, b"", BOTH)) == ([], None)
    held = frozenset({"node-1", "node-2"})
    short = [Shortage(one, 9, held, 1) for one in (A, B)]
    assert write(lambda link: read_shortages(link, b"", {"node-2", "node-3"})) == (short, None)
    write(lambda link: note_disk(link, "node-1", "disk-new"))
    without = [Shortage(one, 9, frozenset({"node-2"}), 1) for one in (A, B)]
    assert write(lambda link: read_shortages(link, b"", BOTH)) == (without, None)
    write(lambda link: note_disk(link, "node-1", "disk-1"))  # the old disk came back
    assert write(lambda link: read_shortages(link, b"", BOTH)) == ([], None)


def test_every_object_that_is_shown_is_looked_at_where_a_node_drains(write: Write) -> None:
    write(lambda link: wish_each(link, {A: 2}))
    write(lambda link: link.execute(update(object_).where(object_.c.object_id != C).values(visible=True)).rowcount)
    write(lambda link: note_gone(link, "node-2", "disk-2", [B, C]))
    found, _ = write(lambda link: read_shortages(link, b"", {"node-2"}, every=True))
    assert found == [Shortage(A, 9, frozenset({"node-1", "node-2"}), 1), Shortage(B, 9, frozenset({"node-1"}), 1)]


def test_shortages_come_a_page_at_a_time(write: Write) -> None:
    ids = [number.to_bytes(32, "big") for number in range(1, PAGE_OBJECTS + 6)]
    write(lambda link: record(link, [batch("node-1", "disk-1", *ids)]))
    write(lambda link: wish_each(link, dict.fromkeys(ids, 2)))
    first, after = write(lambda link: read_shortages(link, b"", BOTH))
    rest, end = write(lambda link: read_shortages(link, after, BOTH))
    assert [one.object_id for one in [*first, *rest]] == ids
    assert (len(first), end) == (PAGE_OBJECTS, None)
