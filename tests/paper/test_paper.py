import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from nodes.objectfile import Record
from nodes.paper import Paper, _Inlet, serve_paper
from nodes.store import Store
from tests.store.objects import dicom, fetch, noise
from transfer.errors import FascicleError, StorageError, UnreachableError
from transfer.objects import object_id

CLIENT = Path(__file__).parent / "client.escript"


class Node:
    """A real store with the simplest committer, and what was announced."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.announced: list[tuple[Record, str]] = []
        self.unreachable = False
        self.refusals: list[str] = []

    async def store_object(self, incoming):
        (outcome,) = await trio.to_thread.run_sync(self.store.commit, [incoming])
        if isinstance(outcome, FascicleError):
            raise outcome
        return outcome

    async def announce(self, record, name):
        assert self.store.contains(record.object_id) == record
        if self.unreachable:
            raise UnreachableError("no gateway")
        self.announced.append((record, name))


@pytest.fixture
def node(tmp_path):
    with Store.open(tmp_path / "node", 0) as store:
        yield Node(store)


@asynccontextmanager
async def listening(node, **settings):
    async with trio.open_nursery() as nursery:
        paper = Paper(node.store, node.store_object, node.announce, **settings)
        yield await nursery.start(serve_paper, paper, "127.0.0.1", 0)
        nursery.cancel_scope.cancel()


def frame(data, name=b"a.dcm"):
    term = b"\x83l\0\0\0\1k" + len(name).to_bytes(2, "big") + name + b"m" + len(data).to_bytes(4, "big") + data
    return len(term).to_bytes(4, "big") + term


def answer(name=b"a.dcm"):
    return (4 + len(name)).to_bytes(4, "big") + b"\x83k" + len(name).to_bytes(2, "big") + name


async def exchange(port, data, *, piece_bytes=1 << 20, end=False):
    """Send `data`, and return all that the node says until it closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            for offset in range(0, len(data), piece_bytes):
                await stream.send_all(data[offset : offset + piece_bytes])
            if end:
                await stream.send_eof()
            return b"".join([part async for part in stream])
        except trio.BrokenResourceError:
            return b""


def empty(node):
    return not [
        path for part in ("objects", "incoming") for path in (node.store.folder / part).rglob("*") if path.is_file()
    ]


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (3 << 20) + 5])
async def test_a_message_is_stored_announced_and_answered(node, length):
    data = noise(length)
    async with listening(node) as port:
        assert await exchange(port, frame(data)) == answer()
    ((record, name),) = node.announced
    assert (record.object_id, record.size_bytes, record.encoding, name) == (object_id(data), length, "raw", "a.dcm")
    assert fetch(node.store, object_id(data)) == data


async def test_a_message_may_come_byte_by_byte(node):
    async with listening(node) as port:
        assert await exchange(port, frame(dicom()), piece_bytes=1) == answer()
    assert node.announced[0][0].identity.modality == "CT"


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"/etc/passwd", b"\0", b"a" * 1024])
async def test_a_name_is_data_and_never_a_path(node, name):
    async with listening(node) as port:
        assert await exchange(port, frame(b"x", name)) == answer(name)
    assert node.announced[0][1] == name.decode()
    assert fetch(node.store, object_id(b"x")) == b"x"


REFUSED = {
    "a length of 2^32-1": b"\xff\xff\xff\xff" + bytes(100),
    "a frame above the setting": frame(bytes(5000)),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(1000),
    "another term": b"\0\0\0\2\x83j",
    "an empty frame": bytes(4),
    "two messages": frame(b"x") + frame(b"y"),
    "a long name": frame(b"x", b"a" * 1025),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_is_not_the_paper_s_message_gets_no_answer_and_leaves_nothing(node, kind):
    async with listening(node, frame_bytes_max=4096) as port:
        assert await exchange(port, REFUSED[kind]) == b""
        assert empty(node)
        assert await exchange(port, frame(b"next")) == answer()


async def test_a_connection_that_ends_early_leaves_nothing(node):
    whole = frame(noise(5000))
    async with listening(node) as port:
        for length in (0, 3, 4, 10, 20, 30, len(whole) - 1):
            assert await exchange(port, whole[:length], end=True) == b""
    assert empty(node)


async def test_a_large_message_that_ends_early_leaves_nothing(node):
    async with listening(node) as port:
        assert await exchange(port, frame(noise(3 << 20))[:-1], end=True) == b""
    assert empty(node)


async def test_a_silent_client_is_left(node, autojump_clock):
    client, served = trio.testing.memory_stream_pair()
    with pytest.raises(UnreachableError):
        await _Inlet(served, 60.0).more()
    assert trio.current_time() >= 60.0
    await client.aclose()


async def test_an_object_that_cannot_be_stored_or_announced_gets_no_answer(node, monkeypatch):
    async def refuse(incoming):
        incoming.abandon()
        raise StorageError("the disk failed")

    async with listening(node) as port:
        node.unreachable = True
        assert await exchange(port, frame(b"x")) == b""
        node.unreachable = False
        assert await exchange(port, frame(b"x")) == answer()
    monkeypatch.setattr(node, "store_object", refuse)
    async with listening(node) as port:
        assert await exchange(port, frame(b"y")) == b""


async def test_when_full_no_more_connections_are_accepted(node):
    async with listening(node, connections_max=1) as port, await trio.open_tcp_stream("127.0.0.1", port) as first:
        await first.send_all(frame(b"x")[:6])
        async with await trio.open_tcp_stream("127.0.0.1", port) as second:
            await second.send_all(frame(b"y"))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert node.announced == []
            await first.send_all(frame(b"x")[6:])
            assert b"".join([part async for part in first]) == answer()
            assert b"".join([part async for part in second]) == answer()
    assert [object_id(b"x"), object_id(b"y")] == [record.object_id for record, _ in node.announced]


async def test_a_real_erlang_client_sends_20_files(node, tmp_path):
    if shutil.which("escript") is None:
        pytest.skip("no Erlang here; Debian has it as erlang-base")
    files = {f"image {number}.dcm": dicom(f"1.2.3.{number}", pixels=300_000 + 2 * number) for number in range(20)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    async with listening(node) as port:
        paths = [str(tmp_path / name) for name in files]
        run = await trio.run_process(
            ["escript", CLIENT, str(port), *paths], capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    assert (run.returncode, run.stdout.decode()) == (0, "20 answered\n")
    assert {name: record.object_id for record, name in node.announced} == {
        name: object_id(data) for name, data in files.items()
    }
    assert all(fetch(node.store, object_id(data)) == data for data in files.values())
