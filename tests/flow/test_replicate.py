"""Replicas: durable before the receipt, also when the object is large, the peer dies, or the ticket has expired."""

import contextlib

import pytest
import trio

from nodes import replicate
from tests.flow.kit import Cluster, noise, open_cluster, put_of
from tests.store.objects import fetch
from transfer import receipts
from transfer.flow import Flow
from transfer.objects import object_id
from transfer.protocol.messages import Refused, Stored


async def send(flow: Flow, data: bytes, onward: int) -> None:
    await flow.put(put_of(data, onward=onward), data)


async def answer(flow: Flow) -> Stored | Refused:
    async with contextlib.aclosing(flow.frames()) as frames:
        async for frame in frames:
            return frame
    raise AssertionError("the flow ended without an answer")


def holders(stored: Stored) -> list[set[str]]:
    return [set(receipt.node_ids) for receipt in receipts.read_unverified(stored).receipts]


def holds(cluster: Cluster, name: str, data: bytes) -> bool:
    with cluster.nodes[name].store.read(object_id(data)) as reader:
        return b"".join(reader) == data


@pytest.mark.parametrize("length", [0, 300_000])
async def test_receipt_names_both_nodes_and_both_have_the_bytes(tmp_path, length):
    async with open_cluster(tmp_path, "n1", "n2") as cluster, cluster.flow("n1", "put", replicas=2) as flow:
        data = noise(length)
        await send(flow, data, onward=1)
        with trio.fail_after(10):
            stored = await answer(flow)
        assert isinstance(stored, Stored)
        assert holders(stored) == [{"n1", "n2"}]
        assert holds(cluster, "n1", data)
        assert holds(cluster, "n2", data)


async def test_large_replica_is_not_cut_by_the_idle_time(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "IDLE_S", 0.005)
    async with open_cluster(tmp_path, "n1", "n2") as cluster, cluster.flow("n1", "put", replicas=2) as flow:
        data = noise(24 << 20)
        cluster.nodes["n1"].put(data)  # there already: only the replica is to be made
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, flow, data, 1)
            with trio.fail_after(20):
                stored = await answer(flow)
            nursery.cancel_scope.cancel()
        assert isinstance(stored, Stored)
        assert holders(stored) == [{"n1", "n2"}]
        assert holds(cluster, "n2", data)


async def test_peer_that_is_gone_makes_the_object_busy_not_stored(tmp_path):
    async with open_cluster(tmp_path, "n1", "n2") as cluster, cluster.flow("n1", "put", replicas=2) as flow:
        cluster.nodes["n2"].stop()
        data = noise(1000)
        await send(flow, data, onward=1)
        with trio.fail_after(15):
            refused = await answer(flow)
        assert isinstance(refused, Refused)
        assert (refused.object_id.hex(), refused.code) == (object_id(data), "busy")


async def test_peer_that_dies_in_mid_way_is_made_up_for_by_another(tmp_path):
    async with open_cluster(tmp_path, "n1", "n2", "n3") as cluster, cluster.flow("n1", "put", replicas=2) as flow:
        datas = [noise(50_000, seed) for seed in range(20)]
        found: dict[str, set[str]] = {}
        async with trio.open_nursery() as nursery, contextlib.aclosing(flow.frames()) as frames:
            nursery.start_soon(_send_all, flow, datas)
            cluster.nodes["n2"].stop()
            with trio.fail_after(20):
                async for frame in frames:
                    assert isinstance(frame, Stored)
                    batch = receipts.read_unverified(frame).receipts
                    found |= {receipt.object_id.hex(): set(receipt.node_ids) for receipt in batch}
                    if len(found) == len(datas):
                        break
        assert {data: found[object_id(data)] for data in datas} == {data: {"n1", "n3"} for data in datas}
        assert all(holds(cluster, "n3", data) for data in datas)


async def _send_all(flow: Flow, datas: list[bytes]) -> None:
    for data in datas:
        await send(flow, data, onward=1)


async def test_ticket_that_expired_before_the_link_was_opened_is_told_as_such(tmp_path):
    async with open_cluster(tmp_path, "n1", "n2") as cluster:
        async with cluster.flow("n1", "put", replicas=2, lifetime_s=0.2) as flow:
            data = noise(1000)
            await trio.sleep(0.3)  # the ticket's clock is the system's
            await send(flow, data, onward=1)
            with trio.fail_after(15):
                refused = await answer(flow)
            assert isinstance(refused, Refused)
            assert refused.code == "unauthorised"
        async with cluster.flow("n1", "put", replicas=2) as flow:
            await send(flow, data, onward=1)
            with trio.fail_after(15):
                assert holders(await answer(flow)) == [{"n1", "n2"}]


@pytest.mark.parametrize("size", [1000, 9 << 20])
@pytest.mark.parametrize("seen", [False, True], ids=["after the look", "before the look"])
async def test_replica_of_a_damaged_object_is_never_acknowledged(tmp_path, size, seen, monkeypatch):
    """A copy that is found rotten makes way for what comes; one that rots after the look is no replica."""
    async with open_cluster(tmp_path, "n1", "n2") as cluster, cluster.flow("n1", "put", replicas=2) as flow:
        data = noise(size)
        store = cluster.nodes["n1"].store
        cluster.nodes["n1"].put(data)
        if not seen:
            check = store.check
            monkeypatch.setattr(store, "check", lambda object_id, *, deep: check(object_id, deep=False))
        name = object_id(data)
        path = cluster.nodes["n1"].store.folder / "objects" / name[:2] / name[2:4] / name
        with path.open("r+b") as file:
            file.seek(-1, 2)
            file.write(bytes([data[-1] ^ 1]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, flow, data, 1)
            with trio.fail_after(15):
                refused = await answer(flow)
            nursery.cancel_scope.cancel()
        if seen:
            assert isinstance(refused, Stored)
            assert [fetch(cluster.nodes[each].store, name) == data for each in ("n1", "n2")] == [True, True]
        else:
            assert isinstance(refused, Refused)
            assert refused.code == "busy"
            assert cluster.nodes["n2"].store.contains(name) is None
