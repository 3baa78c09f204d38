"""COPY: what a node holds comes to others, whole and with receipts of both; damage and absence are told, not copied."""

from pathlib import Path

import pytest

from nodes.reading import StoredReader
from tests.nodes.kit import Client, Running, Site, open_client, open_node, raw_id
from tests.store.objects import fetch, noise, put
from transfer import receipts
from transfer.errors import StorageError, UnauthorisedError
from transfer.objects import object_id
from transfer.protocol.messages import Copied, Copy


async def copy(client: Client, site: Site, source: Running, target: Running, *objects: bytes) -> Copied:
    inner = site.ticket(source, target, rights=["put"], replicas=2, holder="gateway-1")
    answer = await client.ask(Copy(list(map(raw_id, objects)), inner))
    assert isinstance(answer, Copied)
    return answer


@pytest.mark.parametrize("secure", [False, True])
async def test_objects_come_to_the_other_node(site: Site, tmp_path: Path, secure: bool) -> None:
    objects = [noise(2000, seed=1) * 3, noise((5 << 20) + 1, seed=2), b"small"]
    async with (
        open_node(site, tmp_path, secure=secure) as source,
        open_node(site, tmp_path, "node-2", secure=secure) as target,
    ):
        for number, data in enumerate(objects):
            put(source.store, data, encoding="zstd" if number == 0 else "raw")
        fingerprint = site.fingerprint("gateway-1")
        ticket = site.ticket(source, rights=["repair"], holder="gateway-1", client_fingerprint=fingerprint)
        async with open_client(source, ticket, site.client("gateway-1") if secure else None) as client:
            for _ in range(2):  # again without harm
                answer = await copy(client, site, source, target, *objects)
                batch = receipts.verify(answer.stored, site.public_key("node-1"))
                assert answer.failed == []
                assert {one.object_id for one in batch.receipts} == set(map(raw_id, objects))
                assert all(one.node_ids == ["node-1", "node-2"] for one in batch.receipts)
        for data in objects:
            name = object_id(data)
            assert fetch(target.store, name) == fetch(source.store, name)
            assert target.store.contains(name) == source.store.contains(name)


async def test_what_is_not_here_or_damaged_is_told_and_the_rest_is_copied(site: Site, tmp_path: Path) -> None:
    good, bad, absent = noise(1000, seed=1), noise(1000, seed=2), noise(1000, seed=3)
    async with open_node(site, tmp_path) as source, open_node(site, tmp_path, "node-2") as target:
        put(source.store, good)
        put(source.store, bad)
        path = source.object_file(object_id(bad))
        stored = bytearray(path.read_bytes())
        stored[-1] ^= 1
        path.chmod(0o600)
        path.write_bytes(stored)
        async with open_client(source, site.ticket(source, rights=["repair"])) as client:
            answer = await copy(client, site, source, target, good, bad, absent)
        held = receipts.verify(answer.stored, site.public_key("node-1")).receipts
        assert [one.object_id for one in held] == [raw_id(good)]
        assert {one.object_id for one in answer.failed} == {raw_id(bad), raw_id(absent)}
        assert [path.name for path in target.files("objects")] == [object_id(good)]
        assert source.store.statistics().quarantined == 1


async def test_what_the_disk_will_not_read_keeps_nothing_else_back(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it the other node's fault, which would be left alone for a while."""
    objects = [noise(1000, seed=number) for number in range(9)]
    unreadable = objects[4]
    async with open_node(site, tmp_path) as source, open_node(site, tmp_path, "node-2") as target:
        for data in objects:
            put(source.store, data)
        read = source.store.read

        def fail(name: str, *, from_disk: bool = False) -> StoredReader:
            if name == object_id(unreadable):
                raise StorageError("Input/output error")
            return read(name, from_disk=from_disk)

        monkeypatch.setattr(source.store, "read", fail)
        async with open_client(source, site.ticket(source, rights=["repair"])) as client:
            answer = await copy(client, site, source, target, *objects)
        held = receipts.verify(answer.stored, site.public_key("node-1")).receipts
        assert {one.object_id for one in held} == {raw_id(data) for data in objects if data != unreadable}
        assert [(one.object_id, one.code) for one in answer.failed] == [(raw_id(unreadable), "storage")]


async def test_nodes_that_are_not_there_are_told(site: Site, tmp_path: Path) -> None:
    async with open_node(site, tmp_path) as source:
        put(source.store, b"one")
        inner = site.ticket(source, "node-2", rights=["put"], replicas=2)
        async with open_client(source, site.ticket(source, rights=["repair"])) as client:
            answer = await client.ask(Copy([raw_id(b"one")], inner))
        assert [(one.object_id, one.code) for one in answer.failed] == [(raw_id(b"one"), "busy")]
        assert receipts.verify(answer.stored, site.public_key("node-1")).receipts == []


@pytest.mark.parametrize("rights", [["put", "get", "check", "reserve"], ["check"]])
async def test_nobody_but_the_gateway_may_ask(site: Site, node: Running, rights: list[str]) -> None:
    put(node.store, b"one")
    async with open_client(node, site.ticket(node, rights=rights)) as client:
        with pytest.raises(UnauthorisedError):
            await client.ask(Copy([raw_id(b"one")], site.ticket(node, "node-2", rights=["put"])))


@pytest.mark.parametrize("inner", ["of another authority", "of another right", "for other nodes"])
async def test_the_ticket_to_copy_by_is_judged_too(site: Site, node: Running, inner: str) -> None:
    put(node.store, b"one")
    signed = {
        "of another authority": site.ticket(node, "node-2", rights=["put"], signer="node-3"),
        "of another right": site.ticket(node, "node-2", rights=["get"]),
        "for other nodes": site.ticket("node-2", "node-3", rights=["put"]),
    }[inner]
    async with open_client(node, site.ticket(node, rights=["repair"])) as client:
        with pytest.raises(UnauthorisedError):
            await client.ask(Copy([raw_id(b"one")], signed))
