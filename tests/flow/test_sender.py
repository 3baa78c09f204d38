"""A transfer ends, whatever becomes of its flows, and says of every file what became of it."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from nodes import credit
from nodes.objectfile import Record
from nodes.uploads import Uploads
from tests.encodings.images import Image
from tests.flow.kit import CONTEXT, Breaker, Cluster, noise, open_cluster
from tests.gateway.kit import Gateway
from transfer import encoders, inspection, ledger, preparing
from transfer.api import Go, Offered, Wanted
from transfer.chooser import _Auto, _Fixed
from transfer.client import GatewayClient
from transfer.dicom.pixels import Pixels
from transfer.encodings import IMAGE_ENCODINGS, encode_checked, get_encoding
from transfer.encodings.interface import Encoding
from transfer.errors import FullError, SettingsError, UnreachableError, UnusableFileError
from transfer.inspection import SourceFile
from transfer.objects import object_id
from transfer.outcomes import Counters, SendOptions, SendResult
from transfer.protocol.messages import Put
from transfer.sender import send_files
from transfer.work import Item

MANY = 1 << 60


def write(folder: Path, count: int, size: int) -> dict[Path, bytes]:
    folder.mkdir()
    made = {folder / f"{number:03}": noise(size, number) for number in range(count)}
    for path, data in made.items():
        path.write_bytes(data)
    return made


async def each(paths: dict[Path, bytes]) -> AsyncIterator[SourceFile]:
    for path, data in paths.items():
        yield SourceFile(path, path.name, len(data))


async def send(client: GatewayClient, files: dict[Path, bytes], deadline_s: float = 15, **options) -> SendResult:
    wish = SendOptions(any_file=True, **options)
    with trio.fail_after(deadline_s):
        return await send_files(client, each(files), wish, context=CONTEXT)


async def wait_live(client: GatewayClient, count: int) -> None:
    with trio.fail_after(10):
        while sum(node.state == "live" for node in (await client.status()).nodes) < count:
            await trio.sleep(0.01)


def assert_all_sent(cluster: Cluster, result: SendResult, files: dict[Path, bytes]) -> None:
    assert [outcome.error for outcome in result.outcomes] == [None] * len(files)
    assert {outcome.source.path for outcome in result.outcomes} == set(files)
    assert result.receipt is not None
    assert result.receipt.objects == len(set(files.values()))
    for data in files.values():
        held = [node for node in cluster.nodes.values() if node.store.contains(object_id(data))]
        assert held
        with held[0].store.read(object_id(data)) as reader:
            decoder = get_encoding(reader.record.encoding).decoder(len(data))
            found = b"".join(bytes(piece) for block in reader for piece in decoder.feed(block))
            decoder.finish()
            assert found == data


async def test_flows_that_break_while_the_memory_is_full_do_not_wait_for_each_other(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BODIES_BYTES_MAX", 300_000)
    monkeypatch.setattr(preparing, "BATCH_FILES", 1)
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster, trio.open_nursery() as nursery:
        breaker = Breaker(cluster.nodes["node-1"].address, [MANY, 2, 3, 2])
        cluster.advertise("node-1", await nursery.start(breaker.serve))
        await wait_live(client, 1)
        files = write(tmp_path / "in", 60, 100_000)
        result = await send(client, files, flows=1)
        assert_all_sent(cluster, result, files)
        assert breaker.connections >= 5
        nursery.cancel_scope.cancel()


async def test_object_that_the_only_node_with_a_flow_refuses_fails_instead_of_waiting(
    tmp_path: Path, gateway: Gateway, client: GatewayClient
) -> None:
    async with open_cluster(tmp_path, gateway=gateway) as cluster:
        for name in ("node-1", "node-2"):
            await cluster.start(name)
            cluster.advertise(name)
        await wait_live(client, 2)
        files = write(tmp_path / "in", 5, 20_000)
        for node in cluster.nodes.values():
            node.store._room._reserve_bytes = math.inf
        result = await send(client, files, flows=1)
        assert {type(outcome.error) for outcome in result.outcomes} == {FullError}
        assert len(result.outcomes) == 5
        assert result.receipt is None


async def test_an_object_whose_receipt_names_too_few_replicas_goes_again(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicate, hasty = Uploads._replicate, [True]

    def replicate_not_at_first(uploads: Uploads, put: Put, record: Record) -> None:
        if hasty and hasty.pop():
            uploads._durable(record, [])
        else:
            replicate(uploads, put, record)

    monkeypatch.setattr(Uploads, "_replicate", replicate_not_at_first)
    async with open_cluster(tmp_path, gateway=gateway) as cluster:
        for name in ("node-1", "node-2"):
            await cluster.start(name)
            cluster.advertise(name)
        await wait_live(client, 2)
        files = write(tmp_path / "in", 3, 20_000)
        result = await send(client, files, flows=1, replicas=2)
        assert_all_sent(cluster, result, files)
        assert not hasty


@pytest.mark.parametrize("flows", [1, None])
async def test_what_is_left_to_a_node_that_goes_away_fails_as_the_other_refused_it(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch, flows: int | None
) -> None:
    async with open_cluster(tmp_path, gateway=gateway) as cluster:
        for name in ("node-1", "node-2"):
            await cluster.start(name)
            cluster.advertise(name)
        await wait_live(client, 2)
        cluster.nodes["node-1"].store._room._reserve_bytes = math.inf
        monkeypatch.setattr(client, "open_transfer", _and_then(client.open_transfer, cluster.nodes["node-2"].stop))
        files = write(tmp_path / "in", 5, 20_000)
        result = await send(client, files, flows=flows)
        assert [type(outcome.error) for outcome in result.outcomes] == [FullError] * 5


async def test_what_is_left_to_a_node_that_does_not_answer_ends_with_the_patience(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(tmp_path, gateway=gateway) as cluster:
        for name in ("node-1", "node-2"):
            await cluster.start(name)
            cluster.advertise(name)
        cluster.nodes["node-1"].store._room._reserve_bytes = math.inf
        await wait_live(client, 2)
        # the gateway reaches it, the sender does not
        monkeypatch.setattr(client, "open_transfer", _unreachable(client.open_transfer, "node-2"))
        monkeypatch.setattr(client, "renew", _unreachable(client.renew, "node-2"))
        files = write(tmp_path / "in", 5, 20_000)
        with pytest.raises(UnreachableError):
            await send(client, files, flows=1, patience_s=1.0)


def _and_then(call: Callable[..., Awaitable[Go]], then: Callable[[], None]) -> Callable[..., Awaitable[Go]]:
    async def wrapper(*asked: Any) -> Go:
        go = await call(*asked)
        then()
        return go

    return wrapper


def _unreachable(call: Callable[..., Awaitable[Go]], node_id: str) -> Callable[..., Awaitable[Go]]:
    async def wrapper(*asked: Any) -> Go:
        go = await call(*asked)
        nodes = [replace(node, port=1) if node.node_id == node_id else node for node in go.nodes]
        return replace(go, nodes=nodes)

    return wrapper


async def test_the_same_bytes_under_another_name_go_though_the_first_file_failed(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "BATCH_FILES", 1)
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        (tmp_path / "other").write_bytes(b"x")
        (first, data), (second, _) = write(tmp_path / "in", 2, inspection.BODY_BYTES_MAX + 1).items()
        second.write_bytes(data)
        counters, offer = Counters(), client.offer

        async def offer_and_lose(transfer_id: str, objects: Sequence[Offered]) -> Wanted:
            first.unlink(missing_ok=True)
            return await offer(transfer_id, objects)

        async def one_after_the_other() -> AsyncIterator[SourceFile]:
            yield SourceFile(first, "first", len(data))
            yield SourceFile(tmp_path / "other", "other", 1)  # a batch of one goes when the next file comes
            while not counters.failed:
                await trio.sleep(0.01)
            yield SourceFile(second, "second", len(data))

        monkeypatch.setattr(client, "offer", offer_and_lose)
        options = SendOptions(any_file=True, flows=1)
        with trio.fail_after(15):
            result = await send_files(client, one_after_the_other(), options, context=CONTEXT, counters=counters)
        assert {outcome.source.name: type(outcome.error) for outcome in result.outcomes} == {
            "first": UnusableFileError,
            "second": type(None),
            "other": type(None),
        }
        assert result.receipt is not None
        assert result.receipt.objects == 2


async def test_what_failed_and_is_stored_by_then_is_part_of_the_claim() -> None:
    """The gateway counts it so, and would not agree to a commit without it."""
    books = ledger.Ledger(Counters(), patience_s=10.0)
    sources = [SourceFile(Path(name), name, 1) for name in ("first", "second")]
    first, second = (Item("ab" * 32, 1, [source], None) for source in sources)
    books.take_answer(first, stored=False)
    books.unusable(first, UnusableFileError("gone"))
    books.take_answer(second, stored=True)
    assert books.durable_ids() == [second.object_id]
    assert [(outcome.source, outcome.error is None) for outcome in books.outcomes] == [
        (sources[0], False),
        (sources[1], True),
    ]


async def test_senders_without_a_place_come_when_they_were_told_and_end_well(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credit, "FLOWS_MAX", 2)
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        renewed: list[str] = []
        monkeypatch.setattr(client, "renew", renewed.append)  # nobody asks the gateway because a node is busy
        files = [write(tmp_path / f"in-{number}", 3, 20_000 + number) for number in range(6)]
        results: dict[int, SendResult] = {}

        async def one(number: int) -> None:
            results[number] = await send(client, files[number], flows=2, deadline_s=30, patience_s=1.0)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, number)
        for number, result in results.items():
            assert_all_sent(cluster, result, files[number])
        refused = cluster.nodes["node-1"].node.metrics.registry.get_sample_value(
            "fascicle_node_refusals_total", {"code": "busy"}
        )
    assert (len(results), renewed) == (6, [])
    assert refused is not None
    assert 1 <= refused <= 60


@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream")  # httpx, cancelled
async def test_congestion_control_that_the_kernel_has_not_is_told_at_once(
    tmp_path: Path, gateway: Gateway, client: GatewayClient
) -> None:
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        with pytest.raises(SettingsError, match="nonesuch"):
            await send(client, write(tmp_path / "in", 1, 1000), deadline_s=5, congestion="nonesuch")


async def test_large_object_that_moves_outlasts_the_patience(
    tmp_path: Path, gateway: Gateway, client: GatewayClient
) -> None:
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster, trio.open_nursery() as nursery:
        breaker = Breaker(cluster.nodes["node-1"].address, [MANY, 4, 5, 6, 7, 8])
        cluster.advertise("node-1", await nursery.start(breaker.serve))
        await wait_live(client, 1)
        files = write(tmp_path / "in", 1, 120 << 20)
        result = await send(client, files, deadline_s=30, flows=1, patience_s=0.3)
        assert_all_sent(cluster, result, files)
        assert breaker.connections >= 6
        nursery.cancel_scope.cancel()


async def test_an_encoder_that_is_too_slow_for_a_large_object_is_set_aside_and_the_object_goes_raw(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[str] = []
    monkeypatch.setattr(_Fixed, "seconds_max", lambda *_: 0.0)
    monkeypatch.setattr(_Fixed, "set_aside", lambda _, __, name: given_up.append(name))
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        (tmp_path / "large").write_bytes(bytes(20 << 20))
        files = {tmp_path / "large": bytes(20 << 20)}
        assert_all_sent(cluster, await send(client, files, encoding="zstd"), files)
        (stored,) = cluster.nodes["node-1"].store.folder.glob("objects/*/*/*")
        assert stored.stat().st_size > 20 << 20
    assert given_up == ["zstd"]


async def test_nodes_keep_what_was_encoded_and_the_status_says_what_that_saves(
    tmp_path: Path, gateway: Gateway, client: GatewayClient
) -> None:
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        data = Image(rows=256, columns=256, stored=12).encode()
        (tmp_path / "image").write_bytes(data)
        assert_all_sent(
            cluster, await send(client, {tmp_path / "image": data}, encoding="jpegls"), {tmp_path / "image": data}
        )
        status = await client.status()
        (stored,) = cluster.nodes["node-1"].store.folder.glob("objects/*/*/*")
        assert (status.objects, status.bytes) == (1, len(data))
        assert 0 < status.stored_bytes < status.bytes
        assert stored.stat().st_size < len(data)


async def test_two_nodes_have_every_object_of_a_transfer_with_two_replicas(
    tmp_path: Path, gateway: Gateway, client: GatewayClient
) -> None:
    async with open_cluster(tmp_path, "node-1", "node-2", gateway=gateway) as cluster:
        for name in cluster.nodes:
            cluster.advertise(name)
        await wait_live(client, 2)
        files = write(tmp_path / "in", 30, 30_000)
        result = await send(client, files, replicas=2)
        assert_all_sent(cluster, result, files)
        for node in cluster.nodes.values():
            assert all(node.store.contains(object_id(data)) for data in files.values())


async def test_encoder_that_gives_other_bytes_is_found_by_the_node_and_set_aside(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: list[str] = []
    aside: list[str] = []

    def err(encoding: Encoding, data: bytes, pixels: Pixels | None, **how: Any) -> bytes:
        if encoding.name not in IMAGE_ENCODINGS:
            return encode_checked(encoding, data, pixels, **how)
        wrong.append(encoding.name)
        return encode_checked(encoding, data[:-2] + b"\1\1", pixels, **how)

    monkeypatch.setattr(_Auto, "set_aside", lambda _, kind, name: aside.append(name))
    monkeypatch.setattr(encoders, "encode_checked", err)
    monkeypatch.setattr(encoders, "AHEAD_S", 0.0)
    monkeypatch.setattr(encoders, "BATCH_COUNT", 1)
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        images = (Image(rows=64, columns=64, seed=number).encode() for number in range(200))
        files = {tmp_path / f"{number}.dcm": data for number, data in enumerate(images)}
        for path, data in files.items():
            path.write_bytes(data)
        assert_all_sent(cluster, await send(client, files, flows=1, workers=1), files)
    assert wrong
    assert set(wrong) <= set(aside)


async def test_encoding_that_a_node_does_not_know_yet_is_left_off(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As between a workstation that has been upgraded and a node that has not."""
    refused: list[str] = []
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        store = cluster.nodes["node-1"].store
        begin = store.begin

        def begin_as_before(object_id: str, size_bytes: int, encoding: str, *, resumable: bool = False) -> Any:
            if encoding in IMAGE_ENCODINGS:
                refused.append(encoding)
                raise SettingsError(f"unknown encoding `{encoding}`")
            return begin(object_id, size_bytes, encoding, resumable=resumable)

        monkeypatch.setattr(store, "begin", begin_as_before)
        images = (Image(rows=64, columns=64, seed=number).encode() for number in range(50))
        files = {tmp_path / f"{number}.dcm": data for number, data in enumerate(images)}
        for path, data in files.items():
            path.write_bytes(data)
        assert_all_sent(cluster, await send(client, files, encoding="gradient-pack"), files)
    assert 0 < len(refused) <= 50
