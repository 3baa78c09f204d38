"""The sender against a real gateway and real nodes, all in one process: what becomes of every file."""

import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from nodes.heartbeat import beat
from tests.gateway.kit import NODE_IDS, Gateway, Identities, settings
from tests.nodes.kit import Running, Site, open_node
from tests.store.objects import dicom, fetch, noise
from transfer import inspection
from transfer.addresses import Address
from transfer.client import GatewayClient
from transfer.encodings import get_encoding
from transfer.inspection import BODY_BYTES_MAX, SourceFile
from transfer.ledger import Ledger
from transfer.objects import object_id
from transfer.outcomes import Counters, Outcome, SendOptions, SendResult
from transfer.sender import send_files
from transfer.work import Item

LARGE = dicom("1.2.3.4.5", pixels=BODY_BYTES_MAX + 1000)


@dataclass
class Cluster:
    gateway: Gateway
    client: GatewayClient
    context: ssl.SSLContext
    nodes: list[Running]
    counters: Counters

    async def send(self, *paths: Path, named: bool = True, **options) -> SendResult:
        self.counters = Counters()
        options = {"patience_s": 15.0} | options
        with trio.fail_after(40):
            return await send_files(
                self.client,
                files_of(paths, named),
                SendOptions(**options),
                context=self.context,
                counters=self.counters,
            )

    def holders(self, data: bytes) -> list[str]:
        return [node.node.node_id for node in self.nodes if node.object_file(object_id(data)).exists()]

    def stored(self) -> set[str]:
        return {path.name for node in self.nodes for path in node.files("objects")}


async def files_of(paths: tuple[Path, ...], named: bool) -> AsyncIterator[SourceFile]:
    for path in paths:
        yield SourceFile(path, path.name, path.stat().st_size, named)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    running = Gateway(identities, settings(identities, tmp_path / "gateway"))
    yield running
    running.stop()


@asynccontextmanager
async def open_cluster(
    gateway: Gateway, folder: Path, node_ids: tuple[str, ...] = NODE_IDS, full: tuple[str, ...] = ()
) -> AsyncIterator[Cluster]:
    site = Site(gateway.identities.folder)
    credentials = gateway.identities.credentials("ws-1", gateway.port)
    udp = Address("127.0.0.1", gateway.heartbeat_port)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        client = await stack.enter_async_context(GatewayClient(credentials, patience_s=10))
        nodes = []
        for node_id in node_ids:
            reserve_bytes = 1 << 60 if node_id in full else 0
            running = await stack.enter_async_context(
                open_node(site, folder, node_id, secure=True, reserve_bytes=reserve_bytes)
            )
            nursery.start_soon(partial(beat, running.node, running.address, udp, failure_domain=node_id, life=1))
            nodes.append(running)
        with trio.fail_after(10):
            while sum(node.state == "live" for node in (await client.status()).nodes) < len(node_ids):
                await trio.lowlevel.checkpoint()
        yield Cluster(gateway, client, site.client("ws-1"), nodes, Counters())
        nursery.cancel_scope.cancel()


def write(folder: Path, **files: bytes) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


async def test_everything_goes_once_and_the_second_time_nothing(gateway: Gateway, tmp_path: Path) -> None:
    objects = {f"f{number}": dicom(f"1.2.3.{number}", pixels=2000 + number * 2) for number in range(60)}
    paths = write(tmp_path / "in", **objects, large=LARGE)
    async with open_cluster(gateway, tmp_path) as cluster:
        result = await cluster.send(*paths, encoding="raw")
        assert {outcome.source.name: outcome.object_id for outcome in result.outcomes} == {
            path.name: object_id(path.read_bytes()) for path in paths
        }
        assert not any(outcome.skipped or outcome.error for outcome in result.outcomes)
        assert result.receipt is not None
        assert (result.receipt.objects, result.receipt.conflicts) == (61, [])
        size_bytes = sum(path.stat().st_size for path in paths)
        assert result.receipt.bytes == cluster.counters.bytes == sum(cluster.counters.node_bytes.values()) == size_bytes
        assert size_bytes < cluster.counters.wire_bytes < size_bytes + 100_000
        assert cluster.stored() == {object_id(path.read_bytes()) for path in paths}
        assert all(len(cluster.holders(data)) == 1 for data in objects.values())
        again = await cluster.send(*paths)
        assert again.receipt is not None
        assert again.receipt.merkle_root == result.receipt.merkle_root
        assert all(outcome.skipped and not outcome.error for outcome in again.outcomes)
        assert (cluster.counters.objects, cluster.counters.skipped, cluster.counters.bytes) == (0, 61, 0)


async def test_every_file_that_cannot_go_is_told_and_the_rest_goes(gateway: Gateway, tmp_path: Path) -> None:
    good = dicom("1.2.3")
    paths = write(tmp_path / "in", good=good, twin=good, text=b"hello", empty=b"", cut=good[:-9])
    os.mkfifo(tmp_path / "in" / "fifo")
    async with open_cluster(gateway, tmp_path, ("node-1",)) as cluster:
        result = await cluster.send(*paths, tmp_path / "in" / "fifo")
        codes = {outcome.source.name: outcome.error and outcome.error.code for outcome in result.outcomes}
        assert codes == {
            "good": None,
            "twin": None,
            "text": "not_dicom",
            "empty": "unusable_file",
            "cut": "truncated",
            "fifo": "unusable_file",
        }
        assert sorted(outcome.skipped for outcome in result.outcomes if not outcome.error) == [False, True]
        assert (cluster.counters.objects, cluster.counters.skipped, cluster.counters.failed) == (1, 1, 4)
        assert result.receipt is not None
        assert result.receipt.objects == 1
        in_folder = await cluster.send(*paths, named=False)
        assert [outcome.source.name for outcome in in_folder.outcomes if outcome.ignored] == ["text"]
        everything = await cluster.send(*paths, any_file=True)
        assert [outcome.source.name for outcome in everything.outcomes if outcome.error] == ["empty"]


async def test_when_nothing_can_go_nothing_is_committed(gateway: Gateway, tmp_path: Path) -> None:
    async with open_cluster(gateway, tmp_path, ("node-1",)) as cluster:
        assert await cluster.send() == SendResult([], None)
        (outcome,) = (result := await cluster.send(*write(tmp_path / "in", text=b"hello"))).outcomes
        assert (outcome.error.code, result.receipt) == ("not_dicom", None)


async def test_zstd_is_sent_once_small_and_large(gateway: Gateway, tmp_path: Path) -> None:
    small, large, random = dicom("1.2.1") + bytes(1 << 16), noise(5000) * 2000, noise(50_000)
    paths = write(tmp_path / "in", small=small, large=large, random=random)
    async with open_cluster(gateway, tmp_path, ("node-1",)) as cluster:
        result = await cluster.send(*paths, encoding="zstd", any_file=True)
        assert [outcome.error for outcome in result.outcomes] == [None] * 3
        assert sum(cluster.counters.encodings.values()) == 3  # nothing went twice
        assert cluster.counters.wire_bytes < 200_000
        (node,) = cluster.nodes
        for data in (small, large, random):
            record = node.store.check(object_id(data), deep=True)
            decoder = get_encoding(record.encoding).decoder(record.size_bytes)
            assert b"".join(map(bytes, decoder.feed(fetch(node.store, object_id(data))))) == data
        assert node.store.check(object_id(large), deep=False).encoding == "zstd"
        assert node.store.check(object_id(random), deep=False).encoding == "raw"


async def test_two_replicas_are_on_two_nodes(gateway: Gateway, tmp_path: Path) -> None:
    objects = {f"f{number}": dicom(f"1.2.3.{number}") for number in range(20)} | {"large": LARGE}
    async with open_cluster(gateway, tmp_path) as cluster:
        result = await cluster.send(*write(tmp_path / "in", **objects), replicas=2)
        assert result.receipt is not None
        assert result.receipt.objects == 21
        assert all(len(cluster.holders(data)) == 2 for data in objects.values())


async def test_a_full_node_is_passed_over(gateway: Gateway, tmp_path: Path) -> None:
    objects = {f"f{number}": dicom(f"1.2.3.{number}") for number in range(20)}
    async with open_cluster(gateway, tmp_path, ("node-1", "node-2"), full=("node-1",)) as cluster:
        result = await cluster.send(*write(tmp_path / "in", **objects))
        assert result.receipt is not None
        assert all(cluster.holders(data) == ["node-2"] for data in objects.values())


async def test_a_large_file_that_is_cut_while_it_goes_fails_alone(gateway: Gateway, tmp_path: Path) -> None:
    paths = write(tmp_path / "in", large=LARGE, small=dicom("1.2.9"))

    blocks = inspection.blocks

    def cut_blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
        os.truncate(path, 3 << 20)
        return blocks(path, size_bytes)

    async with open_cluster(gateway, tmp_path, ("node-1",)) as cluster:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inspection, "blocks", cut_blocks)
            result = await cluster.send(*paths)
        errors = {outcome.source.name: outcome.error and outcome.error.code for outcome in result.outcomes}
        assert errors == {"large": "unusable_file", "small": None}
        assert result.receipt is not None
        assert result.receipt.objects == 1
        paths[0].write_bytes(LARGE)  # whole again, and what had come is not sent again
        again = await cluster.send(*paths)
        assert again.receipt is not None
        assert again.receipt.objects == 2
        assert cluster.counters.wire_bytes < len(LARGE) - (3 << 20) + 100_000


def harm_first_read(monkeypatch: pytest.MonkeyPatch, count: int, harm: Callable[[Path], None]) -> list[Path]:
    """Have `harm` done to the first large file that is read to be sent, once `count` are offered; return all read."""
    offered, all_offered = [], threading.Event()
    take_answer, blocks = Ledger.take_answer, inspection.blocks

    def noted_answer(ledger: Ledger, item: Item, *, stored: bool) -> None:
        take_answer(ledger, item, stored=stored)
        offered.append(item)
        if len(offered) == count:
            all_offered.set()

    read: list[Path] = []

    def noted_blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
        assert all_offered.wait(10)
        if not read:
            harm(path)
        read.append(path)
        yield from blocks(path, size_bytes)

    monkeypatch.setattr(Ledger, "take_answer", noted_answer)
    monkeypatch.setattr(inspection, "blocks", noted_blocks)
    return read


def change(path: Path) -> None:
    """Change a file's bytes, not its length."""
    with path.open("r+b") as file:
        file.seek(5 << 20)
        byte = file.read(1)
        file.seek(5 << 20)
        file.write(bytes([byte[0] ^ 1]))


async def test_a_large_file_that_goes_away_is_replaced_by_another_with_its_bytes(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path / "in", one=LARGE, two=LARGE)
    harm_first_read(monkeypatch, 2, Path.unlink)
    async with open_cluster(gateway, tmp_path, ("node-1",)) as cluster:
        result = await cluster.send(*paths, encoding="raw")
        gone, good = sorted(result.outcomes, key=lambda outcome: outcome.source.path.exists())
        assert gone.error is not None
        assert gone.error.code == "unusable_file"
        assert good == Outcome(good.source, object_id(LARGE))
        assert result.receipt is not None
        assert result.receipt.objects == 1
        assert (cluster.counters.objects, cluster.counters.skipped, cluster.counters.failed) == (1, 0, 1)
        assert cluster.stored() == {object_id(LARGE)}


@pytest.mark.parametrize("encoding", ["raw", "zstd"])
async def test_a_large_file_that_changes_and_keeps_its_length_is_replaced_by_another_with_its_bytes(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """The node finds it out; the file is read again then, and told of as changed. No encoding is blamed for it."""
    data = LARGE if encoding == "raw" else b"text " * (2 << 20)
    paths = write(tmp_path / "in", one=data, two=data)
    read = harm_first_read(monkeypatch, 2, change)
    async with open_cluster(gateway, tmp_path, ("node-1",)) as cluster:
        result = await cluster.send(*paths, encoding=encoding, any_file=True)
        changed, good = sorted(result.outcomes, key=lambda outcome: outcome.error is None)
        assert changed.error is not None
        assert (changed.error.code, changed.source.path) == ("unusable_file", read[0])
        assert "changed while it was sent" in changed.error.message
        assert good == Outcome(good.source, object_id(data))
        assert read == [changed.source.path, good.source.path]
        assert (cluster.counters.objects, cluster.counters.skipped, cluster.counters.failed) == (1, 0, 1)
        assert cluster.counters.encodings == {encoding: 2}
        assert cluster.stored() == {object_id(data)}


async def test_a_large_file_that_changes_is_named_as_changed_after_one_attempt(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path / "in", one=LARGE, other=dicom("1.2.3", pixels=2000))
    read = harm_first_read(monkeypatch, 2, change)
    async with open_cluster(gateway, tmp_path, ("node-1",)) as cluster:
        result = await cluster.send(*paths, encoding="raw")
        errors = {outcome.source.name: outcome.error and outcome.error.code for outcome in result.outcomes}
        assert errors == {"one": "unusable_file", "other": None}
        assert read == paths[:1]
