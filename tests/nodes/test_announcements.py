"""Announcements: what came by the paper's protocol reaches the gateway, once it is there, and is then forgotten."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from nodes.announce import BATCH_MAX, RETRY_S, Announcer
from nodes.objectfile import Record
from tests.nodes.kit import Running, Site, wait_until
from tests.store.objects import dicom, noise, put
from transfer import receipts, tls
from transfer.addresses import Address
from transfer.api import Announcement
from transfer.objects import object_id
from transfer.protocol.messages import Stored
from transfer.receipts import Receipt
from transfer.stream import listen, port_of


@dataclass
class Gateway:
    """A small HTTPS server that keeps what is announced to it."""

    answers: list[bytes] = field(default_factory=list)  # what it says at first; 200 afterwards
    paths: list[bytes] = field(default_factory=list)
    received: list[Announcement] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)  # ids: what names one is refused whole

    async def handle(self, stream: trio.SSLStream) -> None:
        buffer = b""
        while piece := await stream.receive_some():
            buffer += piece
            head, found, body = buffer.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if found and len(body) >= int(lengths[0].split(b":")[1]):
                buffer = b""
                await self.answer(stream, head, body)

    async def answer(self, stream: trio.SSLStream, head: bytes, body: bytes) -> None:
        self.paths.append(head.split(b"\r\n")[0])
        if self.answers:
            await stream.send_all(self.answers.pop(0))
            return
        announcement = msgspec.json.decode(body, type=Announcement)
        if any(named.object_id in self.refuses for named in announcement.names):
            await stream.send_all(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}")
            return
        self.received.append(announcement)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def receipts(self, site: Site) -> list[Receipt]:
        signed = [one for announcement in self.received for one in announcement.receipts]
        batches = [receipts.verify(Stored(one.batch, one.signature), site.public_key("node-1")) for one in signed]
        assert {(batch.node_id, batch.transfer_id) for batch in batches} == {("node-1", "")}
        return [receipt for batch in batches for receipt in batch.receipts]

    def names(self) -> dict[str, str]:
        return {named.object_id: named.name for announcement in self.received for named in announcement.names}


@asynccontextmanager
async def serving(gateway: Gateway, site: Site, port: int = 0) -> AsyncIterator[int]:
    context = tls.server_context(site.folder / "gateway-1", require_client=True)
    async with await listen(Address("127.0.0.1", port)) as plain, trio.open_nursery() as nursery:

        async def serve() -> None:
            while True:
                nursery.start_soon(handle, trio.SSLStream(await plain.accept(), context, server_side=True))

        async def handle(stream: trio.SSLStream) -> None:
            try:
                await gateway.handle(stream)
            except trio.BrokenResourceError:
                pass
            finally:
                await trio.aclose_forcefully(stream)

        nursery.start_soon(serve)
        yield port_of(plain)
        nursery.cancel_scope.cancel()


def announcer_of(site: Site, running: Running, port: int) -> Announcer:
    return Announcer(
        running.folder / "announcements",
        gateway=f"https://127.0.0.1:{port}",
        identity=site.folder / "node-1",
        sign=lambda records: running.node.sign("", [running.node.receipt(record) for record in records]),
    )


def stored(running: Running, data: bytes) -> Record:
    record = put(running.store, data)
    assert isinstance(record, Record)
    return record


async def test_an_announcement_is_signed_named_and_then_forgotten(site: Site, node: Running) -> None:
    gateway = Gateway()
    async with serving(gateway, site) as port, trio.open_nursery() as nursery:
        announcer = announcer_of(site, node, port)
        await announcer.announce(stored(node, dicom("1.2.3")), "CT 1/a.dcm")
        nursery.start_soon(announcer.serve)
        await wait_until(lambda: not node.files("announcements"))
        await announcer.announce(stored(node, b"second"), "b")
        await wait_until(lambda: len(gateway.received) == 2 and not node.files("announcements"))
        nursery.cancel_scope.cancel()
    assert gateway.paths == [b"POST /api/v1/announcements HTTP/1.1"] * 2
    assert gateway.names() == {object_id(dicom("1.2.3")): "CT%201/a.dcm", object_id(b"second"): "b"}
    first, second = gateway.receipts(site)
    assert (first.object_id.hex(), first.node_ids) == (object_id(dicom("1.2.3")), ["node-1"])
    assert (first.identity.sop_instance_uid, second.identity.any_file) == ("1.2.3", True)


async def test_a_proxy_of_the_environment_is_not_asked(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As hospitals set one for everything: what is of the cluster is reached directly, as by all its other parts."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    gateway = Gateway()
    async with serving(gateway, site) as port, trio.open_nursery() as nursery:
        announcer = announcer_of(site, node, port)
        await announcer.announce(stored(node, b"x"), "x")
        nursery.start_soon(announcer.serve)
        with trio.fail_after(5):
            await wait_until(lambda: not node.files("announcements"))
        nursery.cancel_scope.cancel()
    assert gateway.names() == {object_id(b"x"): "x"}


async def test_a_gateway_that_is_away_or_fails_is_asked_again(site: Site, node: Running, mock_clock) -> None:
    gateway = Gateway(answers=[b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"] * 2)
    async with serving(gateway, site) as port:
        pass
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            announcer = announcer_of(site, node, port)
            await announcer.announce(stored(node, b"x"), "x")
            nursery.start_soon(announcer.serve)
            await wait_until(lambda: len(logs) == 1)
            mock_clock.jump(RETRY_S)
            await wait_until(lambda: len(logs) == 2)
            async with serving(gateway, site, port):
                for count in (3, 4, 5):
                    assert len(node.files("announcements")) == 1
                    mock_clock.jump(RETRY_S)
                    await wait_until(lambda: len(logs) == count)  # noqa: B023  # called before the loop goes on
            nursery.cancel_scope.cancel()
    assert gateway.names() == {object_id(b"x"): "x"}
    assert [line["event"] for line in logs] == ["announcement_waits"] * 4 + ["objects_announced"]
    assert {line["code"] for line in logs[:4]} == {"unreachable"}
    assert node.files("announcements") == []


async def test_announcements_outlast_a_restart_and_go_in_batches(site: Site, node: Running) -> None:
    gateway = Gateway()
    objects = [noise(10, seed=number) for number in range(BATCH_MAX + 5)]
    before = announcer_of(site, node, 1)
    for number, data in enumerate(objects):
        record = Record(
            object_id=object_id(data),
            size_bytes=10,
            stored_bytes=10,
            encoding="raw",
            identity=stored(node, b"i").identity,
        )
        await before.announce(record, f"{number}.dcm")
    (node.folder / "announcements" / f"{object_id(b'half')}.1.2.temporary").write_bytes(b"left by a crash")
    async with serving(gateway, site) as port, trio.open_nursery() as nursery:
        nursery.start_soon(announcer_of(site, node, port).serve)
        await wait_until(lambda: len(node.files("announcements")) == 1)
        nursery.cancel_scope.cancel()
    assert [len(announcement.names) for announcement in gateway.received] == [BATCH_MAX, 5]
    assert gateway.names() == {object_id(data): f"{number}.dcm" for number, data in enumerate(objects)}
    assert len(gateway.receipts(site)) == len(objects)


async def test_what_the_gateway_does_not_take_waits_alone(site: Site, node: Running, mock_clock) -> None:
    """Such as an object whose only copy was found damaged before the gateway heard of it."""
    objects = [noise(100, seed=number) for number in range(5)]
    gateway = Gateway(refuses={object_id(objects[2])})
    with capture_logs() as logs:
        async with serving(gateway, site) as port, trio.open_nursery() as nursery:
            announcer = announcer_of(site, node, port)
            for data in objects:
                await announcer.announce(stored(node, data), "")
            nursery.start_soon(announcer.serve)
            await wait_until(lambda: len(logs) == 2)
            assert gateway.names().keys() == {object_id(data) for data in objects} - gateway.refuses
            assert [path.name for path in node.files("announcements")] == [object_id(objects[2])]
            gateway.refuses.clear()
            mock_clock.jump(RETRY_S)
            await wait_until(lambda: not node.files("announcements"))
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs][:2] == ["objects_announced", "announcement_waits"]
    assert (logs[0]["objects"], logs[1]["code"]) == (4, "conflict")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "..", "a/../b", "x" * 300, "a\0b"])
async def test_a_name_that_is_no_plain_path_is_left_out(site: Site, node: Running, name: str) -> None:
    gateway = Gateway()
    async with serving(gateway, site) as port, trio.open_nursery() as nursery:
        announcer = announcer_of(site, node, port)
        await announcer.announce(stored(node, b"x"), name)
        nursery.start_soon(announcer.serve)
        await wait_until(lambda: not node.files("announcements"))
        nursery.cancel_scope.cancel()
    assert gateway.names() == {object_id(b"x"): ""}


async def test_a_gateway_of_another_authority_hears_nothing(site: Site, node: Running, tmp_path: Path) -> None:
    other = Site.make(tmp_path / "other")
    gateway = Gateway()
    with capture_logs() as logs:
        async with serving(gateway, other) as port, trio.open_nursery() as nursery:
            announcer = announcer_of(site, node, port)
            await announcer.announce(stored(node, b"x"), "x")
            nursery.start_soon(announcer.serve)
            await wait_until(lambda: len(logs) > 0)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs] == ["announcement_waits"]
    assert (gateway.paths, len(node.files("announcements"))) == ([], 1)


async def test_a_damaged_announcement_is_set_aside_and_stops_nothing(site: Site, node: Running) -> None:
    gateway = Gateway()
    (announcements := node.folder / "announcements").mkdir()
    (announcements / object_id(b"damaged")).write_bytes(b"\xc1")
    with capture_logs() as logs:
        async with serving(gateway, site) as port, trio.open_nursery() as nursery:
            announcer = announcer_of(site, node, port)
            nursery.start_soon(announcer.serve)
            await wait_until(lambda: len(logs) == 1)
            await announcer.announce(stored(node, b"x"), "x")
            await wait_until(lambda: len(logs) == 2)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs] == ["announcement_damaged", "objects_announced"]
    assert gateway.names() == {object_id(b"x"): "x"}
    assert [path.name for path in node.files("announcements")] == [f"{object_id(b'damaged')}.damaged"]


async def test_an_announcement_that_the_disk_will_not_read_keeps_no_other_back(
    site: Site, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway()
    records = [stored(node, noise(100, seed=number)) for number in range(5)]
    bad = min(record.object_id for record in records)
    read_bytes = Path.read_bytes

    def read_some(path: Path) -> bytes:
        if path.name == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(path)

    async with serving(gateway, site) as port, trio.open_nursery() as nursery:
        announcer = announcer_of(site, node, port)
        for record in records:
            await announcer.announce(record, "")
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", read_some)
            nursery.start_soon(announcer.serve)
            await wait_until(lambda: [path.name for path in node.files("announcements")] == [bad])
        await announcer.announce(stored(node, b"one more"), "")  # wakes it: the disk reads again
        await wait_until(lambda: not node.files("announcements"))
        nursery.cancel_scope.cancel()
    assert {receipt.object_id.hex() for receipt in gateway.receipts(site)} >= {record.object_id for record in records}
