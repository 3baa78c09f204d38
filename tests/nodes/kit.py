"""A real node (store, keys, listener on a free port), tickets as a gateway signs them, and a client that keeps up."""

import math
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import trio
import trio.testing

from nodes.node import Node
from nodes.server import serve_flows
from nodes.store import Store
from nodes.trust import Trusted
from transfer import pki, receipts, tickets, tls
from transfer.addresses import Address
from transfer.encodings import get_encoding
from transfer.errors import FascicleError
from transfer.flow import Flow, open_flow
from transfer.objects import object_id
from transfer.protocol.frames import LAST, Data, Frame
from transfer.protocol.messages import Control, Object, Put, Refused, Stored
from transfer.receipts import ReceiptBatch
from transfer.stream import listen, port_of
from transfer.tickets import Ticket, TicketNode

NODE_IDS = ("node-1", "node-2", "node-3")
DEADLINE_S = 20.0


class Site:
    """The identities of one cluster, in a folder; `make` also issues those of a stranger from another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, folder: Path) -> Self:
        authority = pki.create_authority(folder / "ca")
        for name, role in [*((name, "node") for name in NODE_IDS), ("gateway-1", "gateway")]:
            pki.issue(authority, folder / name, name=name, role=role, hosts=pki.LOCAL_HOSTS)
        for name in ("ws-1", "ws-2"):
            pki.issue(authority, folder / name, name=name, role="workstation")
        pki.issue(pki.create_authority(folder / "other-ca"), folder / "stranger", name="ws-1", role="workstation")
        return cls(folder)

    def client(self, name: str) -> ssl.SSLContext:
        return tls.client_context(self.folder / name)

    def public_key(self, name: str) -> Any:
        return pki.load_signing_key(self.folder / name).public_key()

    def fingerprint(self, name: str) -> str:
        der = ssl.PEM_cert_to_DER_cert((self.folder / name / "certificate.pem").read_text())
        return tls.peer_from_der(der).fingerprint

    def ticket(self, *nodes: "Running | str", signer: str = "gateway-1", **changes: Any) -> bytes:
        fields = {
            "transfer_id": "t-1",
            "holder": "ws-1",
            "client_fingerprint": self.fingerprint("ws-1"),
            "rights": ["put", "get", "check", "reserve"],
            "nodes": [self._named(node) for node in nodes],
            "replicas": 1,
            "max_bytes": 1 << 40,
            "expires_at_s": time.time() + 60,
        }
        return tickets.sign(Ticket(**(fields | changes)), pki.load_signing_key(self.folder / signer))

    def _named(self, node: "Running | str") -> TicketNode:
        node_id, port = (node, 1) if isinstance(node, str) else (node.node.node_id, node.address.port)
        return TicketNode(node_id, "127.0.0.1", port, self.public_key(node_id).public_bytes_raw().hex(), node_id)


@dataclass
class Running:
    """A node that serves."""

    node: Node
    store: Store
    address: Address
    folder: Path

    def object_file(self, name: str) -> Path:
        return self.folder / "objects" / name[:2] / name[2:4] / name

    def files(self, part: str) -> list[Path]:
        return sorted(path for path in (self.folder / part).rglob("*") if path.is_file())


@asynccontextmanager
async def open_node(
    site: Site, folder: Path, node_id: str = "node-1", *, secure: bool = False, reserve_bytes: int = 0, port: int = 0
) -> AsyncIterator[Running]:
    identity = site.folder / node_id
    with Store.open(folder / node_id, reserve_bytes) as store:
        async with trio.open_nursery() as nursery, await listen(Address("127.0.0.1", port)) as listener:
            node = Node(
                node_id=node_id,
                store=store,
                signing_key=pki.load_signing_key(identity),
                trusted=Trusted.of_key(site.public_key("gateway-1")),
                client_context=tls.client_context(identity) if secure else None,
                nursery=nursery,
            )
            context = tls.server_context(identity, require_client=True) if secure else None
            nursery.start_soon(node.committer.serve)
            nursery.start_soon(partial(serve_flows, node, listener, context))
            yield Running(node, store, Address("127.0.0.1", port_of(listener)), folder / node_id)
            nursery.cancel_scope.cancel()


class Client:
    """A flow whose frames are read all the time, as every real client does."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._said, self._heard = trio.open_memory_channel[Frame | FascicleError](math.inf)

    async def read(self) -> None:
        async with self._said:
            try:
                async for frame in self.flow.frames():
                    self._note(frame)
                    self._said.send_nowait(frame)
            except FascicleError as error:
                self._said.send_nowait(error)

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, Stored):
            self.flow.answered([receipt.object_id for receipt in receipts.read_unverified(frame).receipts])
        if isinstance(frame, Refused):
            self.flow.answered([frame.object_id])

    async def next(self) -> Any:
        """Return the next frame, or raise what ended the flow (trio.EndOfChannel: the node closed it)."""
        with trio.fail_after(DEADLINE_S):
            frame = await self._heard.receive()
        if isinstance(frame, FascicleError):
            raise frame
        return frame

    async def ask(self, message: Control) -> Any:
        await self.flow.ask(message)
        return await self.next()

    async def put(self, data: bytes, *, encoding: str = "raw", **fields: Any) -> None:
        with trio.fail_after(DEADLINE_S):
            await self.flow.put(announce(data, encoding=encoding, **fields), get_encoding(encoding).encode(data))

    async def stored(self, site: Site, node_id: str = "node-1") -> ReceiptBatch:
        """Return the next frame, which is a batch of receipts that this node signed."""
        return receipts.verify(await self.next(), site.public_key(node_id))

    async def gather(self, site: Site, count: int) -> list[str]:
        """Return the ids of the next `count` objects that the node has receipts for."""
        found: list[str] = []
        while len(found) < count:
            found += [receipt.object_id.hex() for receipt in (await self.stored(site)).receipts]
        return found

    async def body(self, head: Object) -> bytes:
        """Return the stored bytes that follow an OBJECT frame."""
        found = b""
        while True:
            data = await self.next()
            assert isinstance(data, Data)
            assert data.offset_bytes == len(found)
            found += data.payload
            if data.flags:
                assert data.flags == LAST
                assert len(found) == head.stored_bytes
                return found


def announce(data: bytes, *, name: bytes = b"", encoding: str = "raw", resumable: bool = False, onward: int = 0) -> Put:
    return Put(name or raw_id(data), len(data), encoding, resumable, onward)


def raw_id(data: bytes) -> bytes:
    return bytes.fromhex(object_id(data))


def flow_to(
    running: Running, ticket: bytes, context: ssl.SSLContext | None = None
) -> AbstractAsyncContextManager[Flow]:
    return open_flow(running.address, context, ticket, node_id=running.node.node_id)


@asynccontextmanager
async def open_client(running: Running, ticket: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    async with flow_to(running, ticket, context) as flow, trio.open_nursery() as nursery:
        client = Client(flow)
        nursery.start_soon(client.read)
        yield client
        nursery.cancel_scope.cancel()


async def exchange(address: Address, *parts: bytes, end: bool = False) -> bytes:
    """Send raw bytes, and return all that comes until the node closes, which it must do in time."""
    with trio.fail_after(DEADLINE_S):
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            found = b""
            try:
                for part in parts:
                    await stream.send_all(part)
                if end:
                    await stream.send_eof()
                async for piece in stream:
                    found += piece
            except trio.BrokenResourceError:
                pass  # closed with bytes of ours unread
            return found


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let the other tasks go on until `condition()` holds."""
    with trio.fail_after(DEADLINE_S):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.005)
