"""A small transfer over a link that is cut at every byte, in both directions, by end of stream and by reset.

A proxy passes so many bytes and then ends both connections. Whatever the node acknowledged before is stored bit for
bit; nothing half received is visible or left behind; and the node serves the next flow.
"""

import contextlib
import dataclasses
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
import trio

from tests.nodes.kit import Client, Running, Site, open_client, open_node, wait_until
from tests.store.objects import fetch, noise
from transfer.addresses import Address
from transfer.errors import NotStoredError, UnreachableError
from transfer.objects import object_id

pytestmark = pytest.mark.timeout(180)
SEED = 1906
LENGTHS = (20, 40, 300)  # of the objects of one transfer
AT_ONCE = 40
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time
Direction = Literal["up", "down"]  # to the node, from it


class Cut(NamedTuple):
    """After how many bytes of a direction, and whether by reset."""

    direction: Direction
    after_bytes: int
    reset: bool


class Proxy:
    """Passes one connection on, and counts what goes each way, until the cut."""

    def __init__(self, target: Address, cut: Cut | None) -> None:
        self._target, self._cut = target, cut
        self.passed = {"up": 0, "down": 0}

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve one connection."""
        async with (
            listener,
            await listener.accept() as client,
            await trio.open_tcp_stream(self._target.host, self._target.port) as node,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, "up", client, node, nursery.cancel_scope)
                nursery.start_soon(self._pump, "down", node, client, nursery.cancel_scope)
            if self._cut is not None and self._cut.reset:
                for stream in (client, node):
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async def _pump(
        self, direction: Direction, source: trio.SocketStream, target: trio.SocketStream, over: trio.CancelScope
    ) -> None:
        mine = self._cut if self._cut is not None and self._cut.direction == direction else None
        try:
            while mine is None or self.passed[direction] < mine.after_bytes:
                most = 65536 if mine is None else mine.after_bytes - self.passed[direction]
                if not (data := await source.receive_some(most)):
                    await target.send_eof()
                    return
                await target.send_all(data)
                self.passed[direction] += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        over.cancel()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture
async def node(site: Site, tmp_path: Path) -> AsyncIterator[Running]:
    async with open_node(site, tmp_path) as running:
        yield running


def objects(seed: int) -> list[bytes]:
    """Return a transfer's objects, which no other seed has."""
    return [noise(length, seed * 10 + length) for length in LENGTHS]


async def transfer(site: Site, node: Running, seed: int, cut: Cut | None) -> tuple[list[str], Proxy]:
    """Send the objects of `seed` through a proxy; return the ids that were acknowledged."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = Proxy(node.address, cut)
    through = dataclasses.replace(node, address=Address("127.0.0.1", listener.socket.getsockname()[1]))
    acknowledged: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.serve, listener)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_broken(cut))
            async with open_client(through, site.ticket(node)) as client:
                await _send(client, site, objects(seed), acknowledged)
        nursery.cancel_scope.cancel()
    return acknowledged, proxy


async def _send(client: Client, site: Site, data: list[bytes], acknowledged: list[str]) -> None:
    for each in data:
        await client.put(each)
    await client.flow.bye()
    while len(acknowledged) < len(data):
        acknowledged += [receipt.object_id.hex() for receipt in (await client.stored(site)).receipts]


@contextlib.contextmanager
def _broken(cut: Cut | None) -> Iterator[None]:
    """A link that is cut is said as such, by nothing else and in time; one that is not, breaks nothing."""
    if cut is None:
        yield
        return
    try:
        yield
    except* (UnreachableError, trio.EndOfChannel):
        pass


def judge(node: Running, seed: int, acknowledged: list[str]) -> None:
    data = {object_id(each): each for each in objects(seed)}
    for name in acknowledged:
        assert fetch(node.store, name) == data[name]
    for name in data:
        with contextlib.suppress(NotStoredError):  # not acknowledged, so it may not be there
            assert fetch(node.store, name) == data[name]


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_link_that_is_cut_at_any_byte_loses_nothing(site: Site, node: Running, direction: Direction) -> None:
    acknowledged, whole = await transfer(site, node, 0, None)
    assert sorted(acknowledged) == sorted(map(object_id, objects(0)))
    chance = random.Random(SEED)
    cuts = [Cut(direction, after, chance.random() < 0.5) for after in range(whole.passed[direction])]
    assert len(cuts) > 300
    some = 0
    places = trio.Semaphore(AT_ONCE)

    async def one(seed: int, cut: Cut) -> None:
        nonlocal some
        async with places:
            acknowledged, _ = await transfer(site, node, seed, cut)
        judge(node, seed, acknowledged)
        some += bool(acknowledged)
        assert cut.direction == "down" or len(acknowledged) < len(LENGTHS), "acknowledged before it came"

    async with trio.open_nursery() as nursery:
        for seed, cut in enumerate(cuts, start=1):
            nursery.start_soon(one, seed, cut)
    await wait_until(lambda: not node.files("incoming"))
    assert node.files("quarantine") == []
    for path in node.files("objects"):
        assert node.store.check(path.name, deep=True).object_id == path.name
    acknowledged, _ = await transfer(site, node, len(cuts) + 1, None)
    assert len(acknowledged) == len(LENGTHS)
    print(f"{len(cuts)} cuts {direction}, {some} after an acknowledgement; seed {SEED}")
