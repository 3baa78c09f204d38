"""GET, CHECK, RESERVE and PING: what is answered, and that damage is found and set aside."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from nodes import session
from tests.nodes.kit import Running, Site, open_client, open_node, raw_id
from tests.store.objects import dicom, noise, put
from transfer import disk, receipts
from transfer.encodings import get_encoding
from transfer.errors import FullError, ProtocolError
from transfer.objects import object_id
from transfer.protocol.messages import Check, Checked, Get, Object, Ping, Pong, Refused, Reserve, Reserved

LARGE_BYTES = (5 << 20) + 3  # above what a reader loads at once


def flip(running: Running, data: bytes, offset: int) -> None:
    """Change one bit of the stored file, as a disk may."""
    with running.object_file(object_id(data)).open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))


@pytest.mark.parametrize("size_bytes", [0, 1, 100_000, 1 << 20, (1 << 20) + 1, LARGE_BYTES])
async def test_get_gives_the_stored_bytes(site: Site, node: Running, size_bytes: int) -> None:
    data = noise(size_bytes)
    put(node.store, data)
    async with open_client(node, site.ticket(node, rights=["get"])) as client:
        head = await client.ask(Get(raw_id(data)))
        assert head == Object(raw_id(data), size_bytes, size_bytes, "raw")
        assert await client.body(head) == data


async def test_answers_come_in_the_order_asked_and_encoded_objects_as_they_rest(site: Site, node: Running) -> None:
    objects = [noise(2000 * number, seed=number) * 2 for number in range(1, 40)]
    for number, data in enumerate(objects):
        put(node.store, data, encoding="zstd" if number % 2 else "raw")
    async with open_client(node, site.ticket(node)) as client:
        for data in objects:
            await client.flow.ask(Get(raw_id(data)))
        for data in objects:
            head = await client.next()
            assert head.object_id == raw_id(data)
            decoder = get_encoding(head.encoding).decoder(head.size_bytes)
            assert b"".join(decoder.feed(await client.body(head))) == data
            decoder.finish()


async def test_get_of_what_is_not_here_is_refused_and_the_next_is_served(site: Site, node: Running) -> None:
    put(node.store, b"here")
    async with open_client(node, site.ticket(node)) as client:
        refused = await client.ask(Get(raw_id(b"missing")))
        assert (refused.object_id, refused.code) == (raw_id(b"missing"), "not_stored")
        assert await client.body(await client.ask(Get(raw_id(b"here")))) == b"here"


@pytest.mark.parametrize("size_bytes", [5000, LARGE_BYTES])
@pytest.mark.parametrize("offset", [0, 50, 100, 2047, 2048, 3000, -1])
async def test_a_flipped_bit_is_never_served_and_the_file_is_set_aside(
    site: Site, node: Running, size_bytes: int, offset: int
) -> None:
    data, sound = noise(size_bytes), noise(3000, seed=9)
    put(node.store, data)
    put(node.store, sound)
    flip(node, data, offset)
    async with open_client(node, site.ticket(node)) as client:
        frame = await client.ask(Get(raw_id(data)))
        while not isinstance(frame, Refused):
            assert not getattr(frame, "flags", 0), "a whole object came"
            frame = await client.next()
        assert (frame.object_id, frame.code) == (raw_id(data), "corrupt")
        assert [path.name for path in node.files("quarantine")] == [f"{object_id(data)}.0"]
        assert node.files("objects") == [node.object_file(object_id(sound))]
        assert (await client.ask(Get(raw_id(data)))).code == "not_stored"
        assert await client.body(await client.ask(Get(raw_id(sound)))) == sound
        await client.put(data)  # a repair
        assert await client.gather(site, 1) == [object_id(data)]
        head = await client.ask(Get(raw_id(data)))
        assert await client.body(head) == data


async def test_check_tells_sound_missing_and_corrupt_apart(site: Site, node: Running) -> None:
    sound, cut, flipped = dicom("1.2.1"), dicom("1.2.2"), dicom("1.2.3")
    for data in (sound, cut, flipped):
        put(node.store, data)
    with node.object_file(object_id(cut)).open("r+b") as file:
        file.truncate(2500)
    flip(node, flipped, 2100)
    ids = [raw_id(data) for data in (sound, cut, flipped, b"missing")]
    async with open_client(node, site.ticket(node)) as client:
        shallow = await client.ask(Check(ids, False))
        assert isinstance(shallow, Checked)
        assert (shallow.missing, shallow.corrupt) == ([raw_id(b"missing")], [raw_id(cut)])
        batch = receipts.verify(shallow.sound, site.public_key("node-1"))
        assert [receipt.object_id for receipt in batch.receipts] == [raw_id(sound), raw_id(flipped)]
        assert [receipt.identity.sop_instance_uid for receipt in batch.receipts] == ["1.2.1", "1.2.3"]
        deep = await client.ask(Check(ids, True))
        assert (deep.missing, deep.corrupt) == ([raw_id(cut), raw_id(b"missing")], [raw_id(flipped)])
        batch = receipts.verify(deep.sound, site.public_key("node-1"))
        assert [receipt.object_id for receipt in batch.receipts] == [raw_id(sound)]
    assert len(node.files("quarantine")) == 2


async def test_a_deep_check_asks_the_disk_and_not_memory(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway lets copies go where the others prove sound."""
    put(node.store, b"here")
    dropped: list[int] = []
    forget = disk.forget_cached
    monkeypatch.setattr(disk, "forget_cached", lambda descriptor: (dropped.append(descriptor), forget(descriptor)))
    async with open_client(node, site.ticket(node)) as client:
        await client.ask(Check([raw_id(b"here")], False))
        assert dropped == []
        await client.ask(Check([raw_id(b"here")], True))
        assert len(dropped) == 1


async def test_check_of_nothing_and_of_many(site: Site, node: Running) -> None:
    objects = [noise(10, seed=number) for number in range(1024)]
    ids = [raw_id(data) for data in objects]
    async with open_client(node, site.ticket(node)) as client:
        nothing = await client.ask(Check([], False))
        assert receipts.verify(nothing.sound, site.public_key("node-1")).receipts == []
        assert (await client.ask(Check(ids, True))).missing == ids


async def test_reserve_answers_free_space_and_load(site: Site, node: Running) -> None:
    put(node.store, b"one")
    assert node.store.wait_counted(10)
    async with open_client(node, site.ticket(node)) as client:
        reserved = await client.ask(Reserve("t-9", 1000))
        assert isinstance(reserved, Reserved)
        assert (reserved.transfer_id, reserved.flows, reserved.objects) == ("t-9", 1, 1)
        assert 1000 < reserved.free_bytes <= os.statvfs(node.folder).f_frsize * os.statvfs(node.folder).f_blocks


async def test_reserve_of_more_than_there_is_is_refused_as_full(site: Site, tmp_path: Path) -> None:
    async with open_node(site, tmp_path, reserve_bytes=1 << 60) as node:
        async with open_client(node, site.ticket(node, rights=["reserve"])) as client:
            with pytest.raises(FullError, match="node-1 has 0 bytes free, 1 are asked for"):
                await client.ask(Reserve("t-1", 1))
        async with open_client(node, site.ticket(node, rights=["reserve"])) as client:
            assert (await client.ask(Reserve("t-1", 0))).free_bytes == 0


@pytest.mark.parametrize("token", [0, -1, 2**63 - 1])
async def test_ping_is_answered_with_its_token(site: Site, secure_node: Running, token: int) -> None:
    async with open_client(secure_node, site.ticket(secure_node), site.client("ws-1")) as client:
        assert await client.ask(Ping(token)) == Pong(token)


async def test_who_waits_for_a_long_answer_is_not_taken_for_silent(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(node.store, b"here")
    monkeypatch.setattr(session, "SILENCE_S", 0.3)
    monkeypatch.setattr(session, "LOOK_S", 0.05)
    answer = session.answer_check

    async def answer_late(*asked: Any) -> Checked:
        await trio.sleep(1.0)
        return await answer(*asked)

    monkeypatch.setattr(session, "answer_check", answer_late)
    async with open_client(node, site.ticket(node)) as client:
        checked = await client.ask(Check([raw_id(b"here")], deep=False))
        assert len(receipts.verify(checked.sound, site.public_key("node-1")).receipts) == 1
        with pytest.raises(ProtocolError, match="nothing came"):
            await client.next()  # now it owes nothing and hears nothing
