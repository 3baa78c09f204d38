"""LIST: every object once and in order, page by page; damage is told; nobody but the gateway may ask."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes import pages as reading
from tests.nodes.kit import Running, Site, open_client, raw_id
from tests.store.objects import dicom, noise, put
from transfer import disk, pages, receipts
from transfer.errors import ProtocolError, StorageError, UnauthorisedError
from transfer.objects import object_id
from transfer.pages import PAGE_OBJECTS_MAX, Page
from transfer.protocol.messages import Check, List, Listed

NONCE = bytes(range(16))


async def ask(site: Site, node: Running, after: bytes = b"", *, quarantined: bool = False) -> Page:
    async with open_client(node, site.ticket(node, rights=["repair"])) as client:
        listed = await client.ask(List(after, quarantined, NONCE))
        return pages.verify(listed, site.public_key("node-1"), node_id="node-1", after=after, nonce=NONCE)


async def refused(site: Site, node: Running, after: bytes = b"") -> None:
    """Ask for a page that the node does not give."""
    async with open_client(node, site.ticket(node, rights=["repair"])) as client:
        await client.flow.ask(List(after, False, NONCE))
        with pytest.raises(StorageError, match="cannot be listed"):
            await client.next()


async def test_everything_is_listed_once_in_order_over_pages(site: Site, node: Running) -> None:
    count = 2 * PAGE_OBJECTS_MAX + 7
    objects = [b"object %d" % number for number in range(count)]
    for start in range(0, count, 100):
        incoming = []
        for data in objects[start : start + 100]:
            one = node.store.begin(object_id(data), len(data), "raw")
            one.write(data)
            incoming.append(one)
        node.store.commit(incoming)
    found: list[bytes] = []
    after, sizes = b"", []
    while True:
        page = await ask(site, node, after)
        found += [receipt.object_id for receipt in page.receipts]
        sizes.append(len(page.receipts))
        assert (page.damaged, page.unreadable, page.incarnation) == ([], [], node.store.incarnation)
        if page.complete:
            break
        after = page.last
    assert found == sorted(raw_id(data) for data in objects)
    assert sizes == [PAGE_OBJECTS_MAX, PAGE_OBJECTS_MAX, 7]


async def test_a_page_says_what_the_receipt_said(site: Site, node: Running) -> None:
    record = put(node.store, dicom("1.2.3.9"))
    page = await ask(site, node)
    assert page.receipts == [node.node.receipt(record)]
    assert page.receipts[0].identity.sop_instance_uid == "1.2.3.9"


async def test_an_empty_node_lists_nothing_and_is_complete(site: Site, node: Running) -> None:
    page = await ask(site, node)
    assert (page.receipts, page.damaged, page.complete, page.last) == ([], [], True, b"")


@pytest.mark.parametrize("harm", ["header", "cut"])
async def test_damage_that_a_header_shows_is_told_and_set_aside(site: Site, node: Running, harm: str) -> None:
    good, bad = noise(1000, seed=5), noise(1000, seed=6)
    for data in (good, bad):
        put(node.store, data)
    path = node.object_file(object_id(bad))
    if harm == "cut":
        os.truncate(path, 2500)
    else:
        path.write_bytes(b"x" + path.read_bytes()[1:])
    page = await ask(site, node)
    assert [receipt.object_id for receipt in page.receipts] == [raw_id(good)]
    assert page.damaged == [raw_id(bad)]
    assert (await ask(site, node, quarantined=True)).damaged == [raw_id(bad)]
    put(node.store, bad)  # repaired: nothing is missing any more, and the damaged file is still there
    assert (await ask(site, node, quarantined=True)).damaged == []
    assert len(node.files("quarantine")) == 1


@pytest.mark.parametrize("level", [1, 2])
async def test_of_a_folder_that_cannot_be_read_nothing_is_said_until_it_can(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """Not known is not gone: no page spans the folder, and no object in it is missing or damaged. The rest is told."""
    ids = sorted(raw_id(data) for data in (b"one", b"two", b"three"))
    for data in (b"one", b"two", b"three"):
        put(node.store, data)
    assert len({one[0] for one in ids}) == 3
    folder = ids[1][:level]
    sick = {node.object_file(ids[1].hex()).parents[2 - level]}

    def failing(call: Any) -> Any:
        def checked(path: str) -> Any:
            if sick & {Path(path), *Path(path).parents}:
                raise StorageError(f"{path}: Input/output error")
            return call(path)

        return checked

    for name in ("entries", "exists", "open_to_read"):
        monkeypatch.setattr(disk, name, failing(getattr(disk, name)))
    async with open_client(node, site.ticket(node, rights=["repair", "check"])) as client:
        checked = await client.ask(Check(ids, deep=True))
        sound = receipts.verify(checked.sound, site.public_key("node-1")).receipts
        assert [receipt.object_id for receipt in sound] == [ids[0], ids[2]]
        assert (checked.missing, checked.corrupt) == ([], [])
    page = await ask(site, node)
    assert [receipt.object_id for receipt in page.receipts] == [ids[0]]
    first, last = int.from_bytes(folder.ljust(32, b"\0"), "big"), int.from_bytes(folder.ljust(32, b"\xff"), "big")
    assert (int.from_bytes(page.last, "big"), page.complete) == (first - 1, False)
    for after in (first - 1, first, int.from_bytes(ids[1], "big"), last - 1):
        await refused(site, node, after.to_bytes(32, "big"))
    behind = await ask(site, node, folder.ljust(32, b"\xff"))
    assert ([receipt.object_id for receipt in behind.receipts], behind.complete) == ([ids[2]], True)
    sick.clear()
    page = await ask(site, node)
    assert [receipt.object_id for receipt in page.receipts] == ids
    assert node.files("quarantine") == []


async def test_of_what_is_in_quarantine_that_is_told_which_the_disk_tells(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(raw_id(data) for data in (b"one", b"two"))
    for data in (b"one", b"two"):
        path = node.object_file(put(node.store, data).object_id)
        path.write_bytes(b"x" + path.read_bytes()[1:])
    assert (await ask(site, node)).damaged == ids
    real, sick = disk.exists, str(node.object_file(ids[0].hex()))

    def failing(path: str) -> bool:
        if path == sick:
            raise StorageError("Input/output error")
        return real(path)

    with monkeypatch.context() as ill:
        ill.setattr(disk, "exists", failing)
        page = await ask(site, node, quarantined=True)
        assert (page.damaged, page.unreadable) == ([ids[1]], [ids[0]])
    assert (await ask(site, node, quarantined=True)).damaged == ids


async def test_the_first_folder_and_that_of_all_objects_cannot_be_passed_in_silence(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node.store.folder / "objects" / "00" / "00").mkdir(parents=True)
    put(node.store, b"one")
    real = disk.entries
    for level in ("objects", "objects/00", "objects/00/00"):
        sick = str(node.store.folder / level)

        def failing(path: str, sick: str = sick) -> Any:
            if path == sick:
                raise StorageError("Input/output error")
            return real(path)

        monkeypatch.setattr(disk, "entries", failing)
        await refused(site, node)
    assert (await ask(site, node, b"\xff" * 32)).complete


async def test_names_that_are_no_objects_of_their_folder_are_not_listed(site: Site, node: Running) -> None:
    data = b"one"
    put(node.store, data)
    path = node.object_file(object_id(data))
    (path.parent / "notes.txt").write_text("hello")
    (path.parent / ("0" * 64 if object_id(data)[:4] != "0000" else "1" * 64)).write_bytes(b"moved here by hand")
    page = await ask(site, node)
    assert [receipt.object_id for receipt in page.receipts] == [raw_id(data)]
    assert (page.damaged, page.unreadable) == ([], [])


async def test_what_is_not_durable_yet_is_left_out(site: Site, node: Running, monkeypatch: Any) -> None:
    data = b"one"
    put(node.store, data)
    monkeypatch.setattr(node.store, "contains", lambda _: None)  # as it answers while the flush is under way
    page = await ask(site, node)
    assert (page.receipts, page.damaged) == ([], [])


@pytest.mark.parametrize("rights", [["get", "check", "reserve"], ["put"]])
async def test_nobody_else_may_ask(site: Site, node: Running, rights: list[str]) -> None:
    async with open_client(node, site.ticket(node, rights=rights)) as client:
        with pytest.raises(UnauthorisedError):
            await client.ask(List(b"", False, NONCE))


async def test_a_page_that_is_not_the_answer_is_not_believed(site: Site, node: Running) -> None:
    for number in range(3):
        put(node.store, b"%d" % number)
    key = site.public_key("node-1")
    async with open_client(node, site.ticket(node, rights=["repair"])) as client:
        listed = await client.ask(List(b"", False, NONCE))
    fits = {"node_id": "node-1", "after": b"", "nonce": NONCE}
    assert len(pages.verify(listed, key, **fits).receipts) == 3
    for wrong in ({"node_id": "node-2"}, {"after": bytes(32)}, {"nonce": bytes(16)}):
        with pytest.raises(ProtocolError):
            pages.verify(listed, key, **(fits | wrong))
    with pytest.raises(UnauthorisedError):
        pages.verify(listed, site.public_key("node-2"), **fits)
    for position in range(len(listed.page)):
        broken = bytearray(listed.page)
        broken[position] ^= 1
        with pytest.raises(UnauthorisedError):
            pages.verify(Listed(bytes(broken), listed.signature), key, **fits)


@pytest.mark.parametrize("fault", ["twice", "disorder", "beyond", "before", "stands still", "of others"])
def test_a_page_that_contradicts_itself_is_refused(site: Site, fault: str) -> None:
    from transfer import pki
    from transfer.objects import Identity
    from transfer.receipts import Receipt

    key = pki.load_signing_key(site.folder / "node-1")

    def receipt(first: int, holder: str = "node-1") -> Receipt:
        return Receipt(bytes([first]) * 32, 1, 1, "raw", [holder], Identity())

    good = Page("node-1", "life", NONCE, b"\x01" * 32, b"\x05" * 32, False, [receipt(2), receipt(5)], [], [])
    changes: dict[str, dict[str, Any]] = {
        "twice": {"damaged": [b"\x02" * 32]},
        "disorder": {"receipts": [receipt(5), receipt(2)]},
        "beyond": {"receipts": [receipt(6)]},
        "before": {"unreadable": [b"\x01" * 32]},
        "stands still": {"last": b"\x01" * 32, "receipts": []},
        "of others": {"receipts": [receipt(2, "node-2")]},
    }
    fits = {"node_id": "node-1", "after": b"\x01" * 32, "nonce": NONCE}
    assert pages.verify(pages.sign(good, key), key.public_key(), **fits) == good
    with pytest.raises(ProtocolError):
        pages.verify(pages.sign(msgspec.structs.replace(good, **changes[fault]), key), key.public_key(), **fits)


async def test_a_page_opens_its_own_objects_and_no_others(node: Running, monkeypatch: Any) -> None:
    for number in range(40):
        put(node.store, b"%d" % number)
    opened: list[str] = []
    contains = node.store.contains
    monkeypatch.setattr(node.store, "contains", lambda name: (opened.append(name), contains(name))[1])
    stretch = reading.read_stretch(node.store, "", 5)
    assert (opened, stretch.complete) == ([record.object_id for record in stretch.sound], False)
    assert len(opened) == 5
