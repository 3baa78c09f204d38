"""What a node puts aside: whole, for its time, back at any moment before, and never what is in its place."""

from pathlib import Path

import pytest

from nodes.announce import ANNOUNCEMENTS, Announcer
from nodes.objectfile import Record
from nodes.pages import read_stretch
from nodes.store import Store
from nodes.trash import Trash
from nodes.uptime import Uptime
from tests.nodes.kit import Running, Site, open_client, raw_id
from tests.store.objects import fetch, noise, put
from transfer import disk, receipts
from transfer.errors import ConflictError, CorruptError, NotStoredError, StorageError, UnauthorisedError
from transfer.objects import object_id
from transfer.protocol.messages import Discard, Done, Purge, Restore, Stored
from transfer.protocol.messages import Trash as AskTrash

DATA = [noise(3000, seed=number) for number in range(4)]
IDS = [object_id(data) for data in DATA]


class Clock:
    """A monotonic clock that a test turns."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "node", 0) as opened:
        for data in DATA:
            put(opened, data)
        assert opened.wait_counted(10)
        yield opened


def aside(store: Store) -> list[Path]:
    return sorted((store.folder / "trash").iterdir())


async def test_a_file_that_the_disk_will_not_open_keeps_no_other_from_being_listed(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in DATA:
        put(node.store, data)
    open_to_read = disk.open_to_read

    def open_some(path: str) -> int:
        if IDS[0] in path:
            raise StorageError("open_to_read a file: Input/output error")
        return open_to_read(path)

    async with open_client(node, site.ticket(node, rights=["repair"])) as client:
        await client.ask(Discard([bytes.fromhex(name) for name in IDS], "orphan", 0))
        monkeypatch.setattr(disk, "open_to_read", open_some)
        trashed = await client.ask(AskTrash(b""))
        found = {one.object_id.hex(): one.stored_bytes for one in trashed.entries}
        assert found == dict.fromkeys(IDS, 3000) | {IDS[0]: 0}


def test_what_is_put_aside_is_not_here_and_comes_back_bit_for_bit(store: Store) -> None:
    trash = Trash(store)
    before = {name: fetch(store, name) for name in IDS}
    assert trash.discard(IDS[:2], "orphan", 60) == {}
    assert [store.contains(name) for name in IDS[:2]] == [None, None]
    assert [record.object_id for record in read_stretch(store, "", 9).sound] == sorted(IDS[2:])
    assert (store.statistics().objects, store.statistics().quarantined) == (2, 0)
    entries, complete = trash.entries()
    assert ([(e.object_id, e.reason) for e in entries], complete) == ([(n, "orphan") for n in sorted(IDS[:2])], True)
    assert [trash.stored_bytes(entry) for entry in entries] == [3000, 3000]
    outcomes = trash.restore(IDS[:2])
    assert all(isinstance(found, Record) for found in outcomes.values())
    assert {name: fetch(store, name) for name in IDS} == before
    assert store.statistics().objects == 4
    assert aside(store) == []


async def test_what_waits_to_be_announced_is_not_put_aside(site: Site, node: Running) -> None:
    """Its client was answered; the gateway, which has not heard of it, takes it for nobody's."""
    record = put(node.store, DATA[0])
    assert isinstance(record, Record)
    put(node.store, DATA[1])
    folder = node.folder / ANNOUNCEMENTS
    announcer = Announcer(
        folder, gateway="https://127.0.0.1:1", identity=site.folder / "node-1", sign=lambda _: Stored(b"", b"")
    )
    await announcer.announce(record, "")
    failed = node.node.trash.discard(IDS[:2], "orphan", 60)
    assert [(name, type(error)) for name, error in failed.items()] == [(IDS[0], ConflictError)]
    assert (node.store.contains(IDS[0]), node.store.contains(IDS[1])) == (record, None)
    (folder / IDS[0]).unlink()
    assert node.node.trash.discard(IDS[:1], "orphan", 60) == {}


def test_it_goes_when_its_time_has_passed_and_not_before(store: Store) -> None:
    clock = Clock()
    trash = Trash(store)
    trash.uptime = Uptime(store.folder / "uptime", clock)
    trash.discard(IDS[:1], "extra", 60)
    clock.now_s += 59
    assert isinstance(trash.purge(IDS[:1], at_once=False)[IDS[0]], ConflictError)
    assert len(aside(store)) == 1
    clock.now_s += 1
    assert trash.purge(IDS[:1], at_once=False) == {}
    assert aside(store) == []
    assert isinstance(trash.restore(IDS[:1])[IDS[0]], NotStoredError)


def test_at_once_is_at_once_and_what_is_in_its_place_is_never_deleted(store: Store) -> None:
    trash = Trash(store)
    trash.discard(IDS[:1], "extra", 3600)
    put(store, DATA[0])
    assert trash.purge(IDS, at_once=True) == {}
    assert aside(store) == []
    assert [fetch(store, name) for name in IDS] == DATA


def test_time_counts_only_while_the_node_runs(tmp_path: Path) -> None:
    """Neither a clock that jumps nor a month without power ends anything early; a lost file makes it later."""
    clock = Clock()
    first = Uptime(tmp_path / "uptime", clock)
    clock.now_s += 50
    first.save()
    clock.now_s += 1_000_000
    second = Uptime(tmp_path / "uptime", clock)
    assert second.now_s() == 50
    clock.now_s += 7.5
    assert second.now_s() == 57
    (tmp_path / "uptime").write_bytes(b"nonsense")
    assert Uptime(tmp_path / "uptime", clock).now_s() == 0


def test_a_copy_that_rotted_while_it_was_aside_does_not_come_back(store: Store) -> None:
    trash = Trash(store)
    trash.discard(IDS[:1], "orphan", 60)
    (path,) = aside(store)
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(stored)
    assert isinstance(trash.restore(IDS[:1])[IDS[0]], CorruptError)
    assert store.contains(IDS[0]) is None
    assert aside(store) == [path]


def test_an_object_that_came_again_stays_and_the_one_that_is_aside_too(store: Store) -> None:
    trash = Trash(store)
    trash.discard(IDS[:1], "orphan", 60)
    put(store, DATA[0])
    (found,) = trash.restore(IDS[:1]).values()
    assert isinstance(found, Record)
    assert fetch(store, IDS[0]) == DATA[0]
    assert len(aside(store)) == 1
    assert trash.discard(IDS[:1], "orphan", 60) == {}
    assert len(aside(store)) == 2


def test_what_is_not_here_or_damaged_is_not_put_aside(store: Store) -> None:
    path = store.folder / "objects" / IDS[0][:2] / IDS[0][2:4] / IDS[0]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:100])
    failed = Trash(store).discard([IDS[0], "0" * 64, IDS[1]], "extra", 60)
    assert {name: type(error) for name, error in failed.items()} == {IDS[0]: CorruptError, "0" * 64: NotStoredError}
    assert [entry.name[:64] for entry in aside(store)] == [IDS[1]]


def test_pages_are_in_the_order_of_ids(store: Store) -> None:
    trash = Trash(store)
    trash.discard(IDS, "extra", 60)
    first, complete = trash.entries("", 3)
    assert ([entry.object_id for entry in first], complete) == (sorted(IDS)[:3], False)
    rest, complete = trash.entries(first[-1].object_id, 3)
    assert ([entry.object_id for entry in rest], complete) == (sorted(IDS)[3:], True)


async def test_the_gateway_has_it_done_over_the_wire(site: Site, node: Running) -> None:
    put(node.store, b"one")
    put(node.store, b"two")
    async with open_client(node, site.ticket(node, rights=["repair"])) as client:
        done = await client.ask(Discard([raw_id(b"one"), raw_id(b"none")], "orphan", 3600))
        assert isinstance(done, Done)
        assert (done.object_ids, [one.code for one in done.failed]) == ([raw_id(b"one")], ["not_stored"])
        listed = await client.ask(AskTrash(b""))
        (entry,) = listed.entries
        assert (entry.object_id, entry.reason, entry.stored_bytes, listed.complete) == (
            raw_id(b"one"),
            "orphan",
            3,
            True,
        )
        assert 3590 <= entry.due_s <= 3600
        kept = await client.ask(Purge([raw_id(b"one")], at_once=False))
        assert [one.code for one in kept.failed] == ["conflict"]
        checked = await client.ask(Restore([raw_id(b"one"), raw_id(b"none")]))
        batch = receipts.verify(checked.sound, site.public_key("node-1"))
        assert [one.object_id for one in batch.receipts] == [raw_id(b"one")]
        assert checked.missing == [raw_id(b"none")]
        assert fetch(node.store, object_id(b"one")) == b"one"
        await client.ask(Discard([raw_id(b"two")], "extra", 3600))
        assert (await client.ask(Purge([raw_id(b"two")], at_once=True))).failed == []
    assert [path.name for path in node.files("objects")] == [object_id(b"one")]
    assert node.files("trash") == []


@pytest.mark.parametrize(
    "asked", [Discard([bytes(32)], "orphan", 1), Restore([bytes(32)]), Purge([bytes(32)], True), AskTrash(b"")]
)
@pytest.mark.parametrize("rights", [["put", "get", "check", "reserve"], ["check"]])
async def test_nobody_but_the_gateway_may_ask(site: Site, node: Running, rights: list[str], asked: Discard) -> None:
    async with open_client(node, site.ticket(node, rights=rights)) as client:
        with pytest.raises(UnauthorisedError):
            await client.ask(asked)
