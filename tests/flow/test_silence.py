"""A node that hangs is left after a while, and its objects go by another; one that is slow is waited for."""

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.verify import _Verify
from nodes import session
from nodes.incoming import Incoming
from nodes.objectfile import Record
from tests.flow.kit import CONTEXT, Breaker, Cluster, listed, noise, open_cluster
from tests.flow.test_reader import behind, fetch_all
from tests.flow.test_sender import MANY, assert_all_sent, send, wait_live, write
from tests.gateway.kit import Gateway
from transfer import flow, silence
from transfer.addresses import Address
from transfer.api import Go
from transfer.client import GatewayClient
from transfer.objects import object_id
from transfer.stream import listen, port_of


class Hanging:
    """A proxy before a node that passes nothing on any more, and keeps all connections open, once `hung` is set."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self.hung = False
        self.after_bytes = MANY

    async def serve(self, *, task_status: trio.TaskStatus[Address]) -> None:
        listener = await listen(Address("127.0.0.1", 0))
        task_status.started(Address("127.0.0.1", port_of(listener)))
        await trio.serve_listeners(self._handle, [listener])

    async def _handle(self, client: trio.SocketStream) -> None:
        node = await trio.open_tcp_stream(self._target.host, self._target.port)
        async with client, node, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, node)
            await self._pump(node, client)

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(4096):
                self.after_bytes -= len(data)
                self.hung = self.hung or self.after_bytes <= 0
                if self.hung:
                    await trio.sleep_forever()
                await target.send_all(data)
        except trio.BrokenResourceError:
            return


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "SILENCE_S", 0.5)
    monkeypatch.setattr(silence, "LOOK_S", 0.05)
    monkeypatch.setattr(flow, "GREETING_S", 1.0)


@pytest.mark.parametrize("after_bytes", [3_000, 200_000])
async def test_a_transfer_does_not_wait_for_ever_for_a_node_that_hangs(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, soon: None, after_bytes: int
) -> None:
    """Found by stopping a node (SIGSTOP) in a transfer: it stood still for as long as the node did."""
    async with open_cluster(tmp_path, "node-1", "node-2", gateway=gateway) as cluster, trio.open_nursery() as nursery:
        hanging = Hanging(cluster.nodes["node-1"].address)
        hanging.after_bytes = after_bytes
        cluster.advertise("node-1", await nursery.start(hanging.serve))
        cluster.advertise("node-2")
        await wait_live(client, 2)
        files = write(tmp_path / "in", 30, 30_000)
        result = await send(client, files, flows=2, deadline_s=40)
        assert hanging.hung
        assert_all_sent(cluster, result, files)
        nursery.cancel_scope.cancel()


async def test_a_node_that_makes_replicas_does_not_wait_for_ever_for_one_that_hangs(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, soon: None
) -> None:
    names = ("node-1", "node-2", "node-3")
    async with open_cluster(tmp_path, *names, gateway=gateway) as cluster, trio.open_nursery() as nursery:
        hanging = Hanging(cluster.nodes["node-1"].address)
        hanging.after_bytes = 100_000
        cluster.advertise("node-1", await nursery.start(hanging.serve))
        for name in names[1:]:
            cluster.advertise(name)
        await wait_live(client, 3)
        files = write(tmp_path / "in", 30, 30_000)
        result = await send(client, files, replicas=2, deadline_s=40)
        assert hanging.hung
        assert_all_sent(cluster, result, files)
        nursery.cancel_scope.cancel()


async def test_a_node_whose_disk_takes_its_time_is_waited_for(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, soon: None
) -> None:
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster, trio.open_nursery() as nursery:
        breaker = Breaker(cluster.nodes["node-1"].address, [])
        cluster.advertise("node-1", await nursery.start(breaker.serve))
        await wait_live(client, 1)
        committed = slow_commits(cluster, 1.5)
        files = write(tmp_path / "in", 5, 30_000)
        result = await send(client, files, flows=1)
        assert_all_sent(cluster, result, files)
        assert committed
        assert breaker.connections == 2  # the gateway's, and the one flow
        nursery.cancel_scope.cancel()


async def test_a_node_that_reads_again_what_it_has_of_a_large_object_is_waited_for(
    tmp_path: Path, gateway: Gateway, client: GatewayClient, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOOK_S", 0.1)
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster, trio.open_nursery() as nursery:
        breaker = Breaker(cluster.nodes["node-1"].address, [])
        cluster.advertise("node-1", await nursery.start(breaker.serve))
        await wait_live(client, 1)
        store = cluster.nodes["node-1"].store
        begin = store.begin

        def begin_slowly(*args: Any, **how: Any) -> Incoming:
            time.sleep(1.5)  # the disk, not a synchronisation
            return begin(*args, **how)

        monkeypatch.setattr(store, "begin", begin_slowly)
        files = write(tmp_path / "in", 1, 9 << 20)  # large enough to be resumable
        assert_all_sent(cluster, await send(client, files, flows=1), files)
        assert breaker.connections == 2  # the gateway's, and the one flow
        nursery.cancel_scope.cancel()


def slow_commits(cluster: Cluster, seconds: float) -> list[int]:
    """Make each group commit of node-1 take so long; return the list that gets the groups' lengths."""
    store = cluster.nodes["node-1"].store
    commit, groups = store.commit, []

    def slow(group):
        time.sleep(seconds)  # the disk, not a synchronisation
        groups.append(len(group))
        return commit(group)

    store.commit = slow
    return groups


async def test_a_reader_does_not_wait_for_ever_for_a_node_that_hangs(tmp_path: Path, soon: None) -> None:
    async with open_cluster(tmp_path, "n1", "n2") as cluster, trio.open_nursery() as nursery:
        data = [noise(30_000, seed) for seed in range(20)]
        for node in cluster.nodes.values():
            for each in data:
                node.put(each)
        hanging = Hanging(cluster.nodes["n1"].address)
        hanging.after_bytes = 100_000
        address = await nursery.start(hanging.serve)
        go = behind(cluster.go("get"), n1=address.port)
        sinks = await fetch_all(go, [listed(each, "n1", "n2") for each in data])
        assert hanging.hung
        assert sinks.whole == {object_id(each): each for each in data}
        nursery.cancel_scope.cancel()


async def test_verify_does_not_wait_for_ever_for_a_node_that_hangs(tmp_path: Path, soon: None) -> None:
    async with open_cluster(tmp_path, "n1") as cluster, trio.open_nursery() as nursery:
        names = [cluster.nodes["n1"].put(noise(1000, seed)).object_id for seed in range(100)]
        hanging = Hanging(cluster.nodes["n1"].address)
        hanging.after_bytes = 6_000
        address = await nursery.start(hanging.serve)
        found = await verify(behind(cluster.go("check"), n1=address.port), names)
        assert hanging.hung
        assert {problem["problem"] for problem in found._problems} == {"unreachable"}
        assert len(found._problems) + sum(found._sound.values()) == 100
        nursery.cancel_scope.cancel()


async def test_verify_waits_for_a_node_whose_disk_takes_its_time(
    tmp_path: Path, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(tmp_path, "n1") as cluster:
        store = cluster.nodes["n1"].store
        names = [cluster.nodes["n1"].put(noise(1000, seed)).object_id for seed in range(3)]
        check = store.check_durable

        def check_slowly(object_id: str, *, deep: bool) -> Record:
            time.sleep(0.5)  # the disk, not a synchronisation
            return check(object_id, deep=deep)

        monkeypatch.setattr(store, "check_durable", check_slowly)
        found = await verify(cluster.go("check"), names)
        assert (found._problems, sum(found._sound.values())) == ([], 3)


async def verify(go: Go, names: list[str]) -> _Verify:
    found = _Verify(deep=True)
    found._sound = dict.fromkeys(names, 0)
    with trio.fail_after(5):
        await found._check_node(go.nodes[0], go, names, CONTEXT)
    return found
