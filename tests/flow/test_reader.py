"""The reader tells of every object exactly once, whatever becomes of its flows."""

import time

import msgspec
import trio

from agent.verify import _Verify
from nodes import server
from nodes.objectfile import HEADER_BYTES
from tests.flow.kit import CONTEXT, Breaker, Running, listed, noise, open_cluster
from tests.store.objects import upload
from transfer import api, disk, reader
from transfer.api import StoredObject
from transfer.encodings import Decoder, open_decoder_here
from transfer.errors import BusyError, CorruptError, FascicleError, StorageError, UnreachableError
from transfer.lobby import Lobby
from transfer.objects import object_id
from transfer.places import Places
from transfer.reader import Renew, fetch


class Sinks:
    """Keeps what was fetched, in memory."""

    def __init__(self) -> None:
        self.whole: dict[str, bytes] = {}
        self.open = 0
        self.done: list[tuple[str, FascicleError | None]] = []

    def __call__(self, stored: StoredObject) -> "Sink":
        self.open += 1
        return Sink(self, stored.object_id)

    def on_done(self, stored: StoredObject, error: FascicleError | None) -> None:
        self.done.append((stored.object_id, error))


class Sink:
    def __init__(self, sinks: Sinks, name: str) -> None:
        self._sinks, self._name, self._blocks = sinks, name, []

    def write(self, block) -> None:
        self._blocks.append(bytes(block))

    def finish(self) -> None:
        self._sinks.whole[self._name] = b"".join(self._blocks)
        self._sinks.open -= 1

    def abandon(self) -> None:
        self._sinks.open -= 1


async def fetch_all(go: api.Go, objects: list[StoredObject], renew: Renew | None = None) -> Sinks:
    sinks = Sinks()
    with trio.fail_after(5):
        await fetch(objects, go, context=CONTEXT, open_sink=sinks, on_done=sinks.on_done, renew=renew)
    assert sinks.open == 0
    assert sorted(name for name, _ in sinks.done) == sorted(stored.object_id for stored in objects)
    return sinks


def behind(go: api.Go, **ports: int) -> api.Go:
    """Return `go` with other ports."""
    nodes = [msgspec.structs.replace(node, port=ports.get(node.node_id, node.port)) for node in go.nodes]
    return msgspec.structs.replace(go, nodes=nodes)


def stored_path(running: Running, name: str):
    return running.store.folder / "objects" / name[:2] / name[2:4] / name


async def test_flow_that_ends_early_costs_no_object_of_a_single_replica(tmp_path):
    async with open_cluster(tmp_path, "n1") as cluster, trio.open_nursery() as nursery:
        datas = [noise(100_000, seed) for seed in range(60)]
        for data in datas:
            cluster.nodes["n1"].put(data)
        breaker = Breaker(cluster.nodes["n1"].address, [10])
        address = await nursery.start(breaker.serve)
        sinks = await fetch_all(behind(cluster.go("get"), n1=address.port), [listed(data, "n1") for data in datas])
        assert sinks.whole == {object_id(data): data for data in datas}
        assert breaker.connections == 2
        nursery.cancel_scope.cancel()


async def test_flow_that_ends_between_two_objects_does_not_hang(tmp_path):
    async with open_cluster(tmp_path, "n1") as cluster, trio.open_nursery() as nursery:
        datas = [noise(100_000, seed) for seed in range(60)]
        for data in datas:
            cluster.nodes["n1"].put(data)
        # The greeting alone passes: the connection ends while 32 requests are under way and more wait.
        breaker = Breaker(cluster.nodes["n1"].address, [1, 1])
        address = await nursery.start(breaker.serve)
        sinks = await fetch_all(behind(cluster.go("get"), n1=address.port), [listed(data, "n1") for data in datas])
        assert {type(error) for _, error in sinks.done} == {UnreachableError}
        nursery.cancel_scope.cancel()


async def test_damaged_single_replica_is_called_damaged_not_unreachable(tmp_path):
    async with open_cluster(tmp_path, "n1") as cluster:
        node = cluster.nodes["n1"]
        data = noise(50_000)
        name = node.put(data).object_id
        path = stored_path(node, name)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        sinks = await fetch_all(cluster.go("get"), [listed(data, "n1")])
        ((_, error),) = sinks.done
        assert isinstance(error, CorruptError)


async def test_every_damaged_replica_is_replaced_by_the_sound_one_though_its_flow_was_about_to_end(tmp_path):
    async with open_cluster(tmp_path, "n1", "n2") as cluster:
        datas = [noise(20_000, seed) for seed in range(20)]
        for data in datas:
            for node in cluster.nodes.values():
                node.put(data)
            path = stored_path(cluster.nodes["n1"], object_id(data))
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        sinks = await fetch_all(cluster.go("get"), [listed(data, "n1", "n2") for data in datas])
        assert {error for _, error in sinks.done} == {None}
        assert len(sinks.whole) == 20


async def test_verify_ends_when_a_node_closes_the_flow(tmp_path):
    async with open_cluster(tmp_path, "n1") as cluster, trio.open_nursery() as nursery:
        names = [cluster.nodes["n1"].put(noise(1000, seed)).object_id for seed in range(100)]
        breaker = Breaker(cluster.nodes["n1"].address, [2])
        address = await nursery.start(breaker.serve)
        go = behind(cluster.go("check"), n1=address.port)
        verify = _Verify(deep=True)
        verify._sound = dict.fromkeys(names, 0)
        with trio.fail_after(5):
            await verify._check_node(go.nodes[0], go, names, CONTEXT)
        assert {problem["problem"] for problem in verify._problems} == {"unreachable"}
        assert len(verify._problems) == 84
        nursery.cancel_scope.cancel()


async def test_a_reader_without_a_place_comes_when_it_was_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(server, "make_doors", lambda node, limit: server.Doors(Lobby(9, 9), Places(1, 1)))
    async with open_cluster(tmp_path, "node-1") as cluster, trio.open_nursery() as nursery:
        data = noise(5000)
        cluster.nodes["node-1"].put(data)

        async def hold_the_place(*, task_status: trio.TaskStatus[None]) -> None:
            async with cluster.flow("node-1", "get"):
                task_status.started()
                await trio.sleep(0.5)

        await nursery.start(hold_the_place)
        started_s = trio.current_time()
        sinks = await fetch_all(cluster.go("get"), [listed(data, "node-1")])
        assert (list(sinks.whole.values()), sinks.done[0][1]) == ([data], None)
        assert trio.current_time() - started_s >= 1


async def test_a_reader_that_never_finds_a_place_says_so(tmp_path, monkeypatch, autojump_clock) -> None:
    monkeypatch.setattr(reader, "BUSY_MAX", 1)
    monkeypatch.setattr(server, "make_doors", lambda node, limit: server.Doors(Lobby(9, 9), Places(0, 1)))
    async with open_cluster(tmp_path, "node-1") as cluster:
        data = noise(5000)
        cluster.nodes["node-1"].put(data)
        sinks = await fetch_all(cluster.go("get"), [listed(data, "node-1")])
        assert sinks.whole == {}
        assert isinstance(sinks.done[0][1], BusyError)


async def test_empty_object_costs_those_behind_it_nothing(tmp_path):
    """The paper's protocol takes one (tests/paper)."""
    async with open_cluster(tmp_path, "n1") as cluster:
        datas = [noise(1000, 1), b"", *(noise(1000, seed) for seed in range(2, 40))]
        for data in datas:
            cluster.nodes["n1"].put(data)
        sinks = await fetch_all(cluster.go("get"), [listed(data, "n1") for data in datas])
        assert sinks.whole == {object_id(data): data for data in datas}


async def test_object_that_both_ends_find_damaged_costs_those_behind_it_nothing(tmp_path):
    """This end cannot decode what it gets, long before the node has read the last block and refuses the object."""
    async with open_cluster(tmp_path, "n1") as cluster:
        node = cluster.nodes["n1"]
        sound = [noise(1000, seed) for seed in range(9)]
        damaged = [noise(6 << 20, seed) for seed in (20, 21, 22)]
        for data in sound:
            node.put(data)
        for data in damaged:
            (record,) = node.store.commit([upload(node.store, data, encoding="zstd")])
            path = stored_path(node, record.object_id)
            stored = bytearray(path.read_bytes())
            stored[HEADER_BYTES : HEADER_BYTES + 4] = b"none"
            path.write_bytes(stored)
        objects = [*sound[:3], damaged[0], *sound[3:6], damaged[1], damaged[2], *sound[6:]]
        sinks = await fetch_all(cluster.go("get"), [listed(data, "n1") for data in objects])
        assert sinks.whole == {object_id(data): data for data in sound}
        errors = {name: type(error) for name, error in sinks.done if error}
        assert errors == dict.fromkeys(map(object_id, damaged), CorruptError)


async def test_what_a_disk_will_not_read_is_named_and_the_rest_is_verified(tmp_path, monkeypatch):
    """The answer of the node's that was to speak of it never came, and all behind it was called the disk's trouble."""
    async with open_cluster(tmp_path, "n1") as cluster:
        names = [cluster.nodes["n1"].put(noise(1000, seed)).object_id for seed in range(40)]
        bad = stored_path(cluster.nodes["n1"], names[5])
        read_at = disk.read_at

        def read_some(descriptor: int, length: int, offset: int) -> memoryview:
            if disk.is_open_as(descriptor, str(bad)):
                raise StorageError("read_at a file: Input/output error")
            return read_at(descriptor, length, offset)

        monkeypatch.setattr(disk, "read_at", read_some)
        go = cluster.go("check")
        for deep in (False, True):
            verify = _Verify(deep=deep)
            verify._sound = dict.fromkeys(names, 0)
            with trio.fail_after(5):
                await verify._check_node(go.nodes[0], go, names, CONTEXT)
            assert verify._problems == [{"object": names[5], "node": "n1", "problem": "unreadable"}]
            assert sum(verify._sound.values()) == 39


async def test_flow_that_breaks_when_the_ticket_has_expired_is_opened_with_a_new_one(tmp_path, monkeypatch):
    """A page of objects takes longer over a slow link than a ticket lasts."""
    monkeypatch.setattr(Sink, "write", lambda sink, block: (time.sleep(0.02), sink._blocks.append(bytes(block))))
    async with open_cluster(tmp_path, "n1") as cluster, trio.open_nursery() as nursery:
        datas = [noise(1000, seed) for seed in range(60)]
        for data in datas:
            cluster.nodes["n1"].put(data)
        breaker = Breaker(cluster.nodes["n1"].address, [81])
        address = await nursery.start(breaker.serve)
        go = behind(msgspec.structs.replace(cluster.go("get", lifetime_s=0.5), expires_in_s=0.5), n1=address.port)

        async def renew() -> api.Go:
            return cluster.go("get")

        sinks = await fetch_all(go, [listed(data, "n1") for data in datas], renew=renew)
        assert {error for _, error in sinks.done} == {None}
        assert breaker.connections == 2
        nursery.cancel_scope.cancel()


async def test_encoding_that_this_release_does_not_know_costs_no_other_object(tmp_path):
    """As when agents and nodes are newer than who reads."""

    def open_some(encoding: str, size_bytes: int, name: str) -> Decoder:
        return open_decoder_here("of-tomorrow" if encoding == "zstd" else encoding, size_bytes, name)

    async with open_cluster(tmp_path, "n1") as cluster:
        node = cluster.nodes["n1"]
        datas = [noise(1000, seed) for seed in range(40)]
        node.store.commit([upload(node.store, data, encoding="zstd") for data in datas[3:5]])
        for data in datas:
            node.put(data)
        objects, go, sinks = [listed(data, "n1") for data in datas], cluster.go("get"), Sinks()
        with trio.fail_after(5):
            await fetch(objects, go, context=CONTEXT, open_sink=sinks, on_done=sinks.on_done, open_decoder=open_some)
        assert {name for name, error in sinks.done if error} == {object_id(data) for data in datas[3:5]}
        assert all("of-tomorrow" in error.message for _, error in sinks.done if error)
        assert len(sinks.whole) == 38
