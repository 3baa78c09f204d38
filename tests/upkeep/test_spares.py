"""What the catalogue takes for an orphan, from when on, and what a kill between two steps leaves."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from gateway import transfers
from gateway.asides import doubted, put_aside
from gateway.damage import holders, note_found
from gateway.database import Database
from gateway.disks import note_disk
from gateway.extraplan import Drop
from gateway.extras import put_extras_aside, read_held
from gateway.receiving import record
from gateway.runtime import advance, running_s
from gateway.schema import object_, spare, transfer
from gateway.spares import (
    abandon_idle,
    begin_anew,
    count_orphans,
    is_orphan,
    note_orphans,
    orphans_of,
    put_orphans_aside,
)
from gateway.wishes import wish_each
from tests.repair.test_damage import batch
from transfer.api import Offered, OpenTransfer
from transfer.pages import Page
from transfer.tls import Peer

Write = Callable[[Callable[[Connection], Any]], Any]
A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
SENDER = Peer("ws-1", "workstation", "0" * 64)


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Run a unit of work on a catalogue with three unseen objects on node-1."""
    database = Database(tmp_path / "catalogue.db")
    with asyncio.Runner() as runner:

        def run(unit: Callable[[Connection], Any]) -> Any:
            return runner.run(database.write(unit))

        run(lambda link: note_disk(link, "node-1", "disk-1"))
        run(lambda link: record(link, [batch("node-1", "disk-1", A, B, C)]))
        yield run
        database.close()


def page(*ids: bytes, after: bytes = b"", last: bytes = C, complete: bool = True) -> Page:
    held = batch("node-1", "disk-1", *ids).receipts
    return Page("node-1", "disk-1", bytes(16), after, last, complete, held, [], [])


def show(link: Connection, *ids: bytes) -> None:
    link.execute(update(object_).where(object_.c.object_id.in_(ids)).values(visible=True))


def offer(link: Connection, name: str, *ids: bytes) -> None:
    transfers.open_transfer(link, name, OpenTransfer(), SENDER, open_max=9)
    transfers.offer(link, name, SENDER, [Offered(object_id=one.hex(), size_bytes=9) for one in ids])


def old(link: Connection, until_s: int, *, known: bool = True) -> list[bytes]:
    return orphans_of(link, "node-1", until_s=until_s, known=known, limit=9)


def test_running_time_is_a_sum_that_never_falls(write: Write) -> None:
    assert write(running_s) == 0
    assert write(lambda link: advance(link, 5)) == 5
    assert write(lambda link: advance(link, -100)) == 5
    assert write(lambda link: advance(link, 7)) == 12
    assert write(running_s) == 12


def test_an_orphan_keeps_its_beginning_until_it_is_none(write: Write) -> None:
    write(lambda link: note_orphans(link, page(A, B, C), [A, B, C], 100))
    write(lambda link: note_orphans(link, page(A, B, C), [A, C], 200))
    write(lambda link: note_orphans(link, page(A, B, C), [A, B, C], 300))
    assert write(lambda link: old(link, 100)) == [A, C]
    assert write(lambda link: old(link, 299)) == [A, C]
    assert write(lambda link: old(link, 300)) == [A, B, C]
    assert write(count_orphans) == 3


def test_a_page_says_nothing_of_what_is_beside_its_stretch(write: Write) -> None:
    write(lambda link: note_orphans(link, page(A, B, C), [A, B, C], 100))
    write(lambda link: note_orphans(link, page(B, after=A, last=B, complete=False), [], 200))
    assert write(lambda link: old(link, 100)) == [A, C]


def test_what_is_shown_or_offered_is_no_orphan_however_old(write: Write) -> None:
    write(lambda link: note_orphans(link, page(A, B, C), [A, B, C], 0))
    write(lambda link: show(link, A))
    write(lambda link: offer(link, "t", B))
    assert write(lambda link: is_orphan(link, [A, B, C])) == {C}
    assert write(lambda link: old(link, 10)) == [C]
    assert write(lambda link: put_orphans_aside(link, "node-1", [A, B, C], until_s=10, known=True)) == [C]
    assert write(lambda link: holders(link, [A, B, C])) == {A: {"node-1"}, B: {"node-1"}}


def test_what_the_catalogue_never_heard_of_is_one_only_for_an_operator(write: Write) -> None:
    stranger = b"\x09" * 32
    write(lambda link: note_orphans(link, page(stranger), [stranger], 0))
    assert write(lambda link: old(link, 10, known=True)) == []
    assert write(lambda link: old(link, 10, known=False)) == [stranger]
    assert write(count_orphans) == 1


def test_a_receipt_of_before_counts_no_more_and_one_of_since_does(write: Write) -> None:
    """Whichever comes; and a copy that was put back has another grace time."""
    write(lambda link: note_orphans(link, page(A), [A], 0))
    write(lambda link: put_orphans_aside(link, "node-1", [A], until_s=10, known=True))
    stale = batch("node-1", "disk-1", A, B)
    assert write(lambda link: doubted(link, [stale])) == {"node-1": [A]}
    write(lambda link: record(link, [stale]))
    assert write(lambda link: holders(link, [A, B])) == {B: {"node-1"}}
    named_by_another = batch("node-2", "disk-2", A, others=("node-1",))
    assert write(lambda link: doubted(link, [named_by_another])) == {"node-1": [A]}
    write(lambda link: record(link, [named_by_another]))
    assert write(lambda link: holders(link, [A])) == {A: {"node-2"}}
    asked = batch("node-1", "disk-1", A)
    write(lambda link: note_found(link, [asked]))
    write(lambda link: begin_anew(link, asked, 50))
    assert write(lambda link: holders(link, [A])) == {A: {"node-1", "node-2"}}
    assert write(lambda link: doubted(link, [stale])) == {}
    assert write(lambda link: old(link, 49)) == []
    assert write(lambda link: old(link, 50)) == [A]


def test_a_copy_too_many_goes_only_while_it_is_one(write: Write) -> None:
    write(lambda link: note_disk(link, "node-2", "disk-2"))
    write(lambda link: note_disk(link, "node-3", "disk-3"))
    for node, disk in (("node-2", "disk-2"), ("node-3", "disk-3")):
        write(lambda link, node=node, disk=disk: record(link, [batch(node, disk, A, B, C)]))
    write(lambda link: show(link, A, B, C))
    write(lambda link: wish_each(link, {A: 2, B: 3, C: 2}))
    write(lambda link: offer(link, "t", C))
    both = frozenset({"node-2", "node-3"})
    drops = [Drop(one, 9, "node-1", both) for one in (A, B, C)]
    going = write(lambda link: put_extras_aside(link, drops, back_since_s=0))
    assert going == [drops[0]], "B is wished three times, C is offered in an open transfer"
    assert write(lambda link: holders(link, [A])) == {A: both}
    assert write(lambda link: put_extras_aside(link, drops, back_since_s=0)) == []
    more = Drop(A, 9, "node-2", frozenset({"node-3"}))
    assert write(lambda link: put_extras_aside(link, [more], back_since_s=0)) == []
    write(lambda link: note_disk(link, "node-3", "another disk"))
    held, end = write(lambda link: read_held(link, b""))
    assert ({one.object_id: set(one.holders) for one in held}[A], end) == ({"node-2"}, None)


def test_a_copy_that_an_operator_had_put_back_is_left_alone_for_a_while(write: Write) -> None:
    write(lambda link: note_disk(link, "node-2", "disk-2"))
    write(lambda link: record(link, [batch("node-2", "disk-2", A)]))
    write(lambda link: show(link, A))
    drop = Drop(A, 9, "node-1", frozenset({"node-2"}))
    write(lambda link: begin_anew(link, batch("node-1", "disk-1", A), 100))
    assert write(lambda link: put_extras_aside(link, [drop], back_since_s=99)) == []
    write(lambda link: note_orphans(link, page(A), [], 150))
    assert write(lambda link: put_extras_aside(link, [drop], back_since_s=99)) == [], "a stocktake changes nothing"
    assert write(lambda link: put_extras_aside(link, [drop], back_since_s=100)) == [drop]
    assert write(lambda link: link.execute(select(spare)).all()) == []


def test_a_transfer_in_which_nothing_happens_is_given_up_and_its_claims_with_it(write: Write) -> None:
    write(lambda link: offer(link, "still", A))
    write(lambda link: offer(link, "goes on", B))
    assert write(lambda link: abandon_idle(link, 100, 50)) == []
    more = [Offered(object_id=C.hex(), size_bytes=9)]
    write(lambda link: transfers.offer(link, "goes on", SENDER, more))
    assert write(lambda link: abandon_idle(link, 149, 50)) == []
    assert write(lambda link: abandon_idle(link, 150, 50)) == ["still"]
    states = dict(write(lambda link: link.execute(select(transfer.c.transfer_id, transfer.c.state)).all()))
    assert states == {"still": "abandoned", "goes on": "open"}
    assert write(lambda link: is_orphan(link, [A, B, C])) == {A}
    assert write(lambda link: abandon_idle(link, 199, 50)) == ["goes on"]


@pytest.mark.parametrize("how", ["idle", "too many"])
def test_what_a_transfer_has_offered_is_an_orphan_from_its_end_on(write: Write, how: str) -> None:
    """However long nodes list it; its sender has the whole grace time to come back."""
    write(lambda link: offer(link, "t", A))
    write(lambda link: note_orphans(link, page(A, B), [A, B], 100))
    if how == "idle":
        write(lambda link: abandon_idle(link, 500, 50))
        assert write(lambda link: abandon_idle(link, 550, 50)) == ["t"]
    else:
        write(lambda link: transfers.open_transfer(link, "u", OpenTransfer(), SENDER, open_max=1))
    assert write(lambda link: is_orphan(link, [A, B])) == {A, B}
    assert write(lambda link: old(link, 550)) == [B]
    write(lambda link: note_orphans(link, page(A, B), [A, B], 600))
    assert (write(lambda link: old(link, 599)), write(lambda link: old(link, 600))) == ([B], [A, B])


def test_a_copy_that_is_named_no_more_is_not_named_by_another_kill(write: Write) -> None:
    """The gateway died between its transaction and the node's answer: the file is in its place, unnamed."""
    write(lambda link: show(link, A))
    write(lambda link: put_aside(link, "node-1", [A], "extra"))
    assert write(lambda link: holders(link, [A])) == {}
    write(lambda link: record(link, [batch("node-1", "disk-1", A)]))
    assert write(lambda link: holders(link, [A])) == {}
    write(lambda link: note_found(link, [batch("node-1", "disk-1", A)]))
    assert write(lambda link: holders(link, [A])) == {A: {"node-1"}}
