"""Real nodes on loopback, with a store each, tickets that open flows to them, and a gateway where a test has one."""

import contextlib
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from nodes.node import Node
from nodes.objectfile import Record
from nodes.server import serve_flows
from nodes.store import Store
from nodes.trust import Trusted
from tests.gateway.kit import Gateway
from transfer import api, heartbeat, pki, tickets
from transfer.addresses import Address
from transfer.flow import Flow, open_flow
from transfer.heartbeat import Heartbeat
from transfer.objects import Identity, object_id
from transfer.protocol.messages import Put, Right
from transfer.stream import listen, port_of
from transfer.tickets import Ticket, TicketNode

CONTEXT = ssl.create_default_context()  # never used: the data plane of these tests is plain


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


class Running:
    """A node that serves, until `stop`."""

    def __init__(self, node: Node, store: Store, port: int, scope: trio.CancelScope) -> None:
        self.node, self.store, self.port, self._scope = node, store, port, scope
        self.address = Address("127.0.0.1", port)

    def stop(self) -> None:
        """Close the listener and all flows."""
        self._scope.cancel()

    @property
    def public_key(self) -> str:
        return self.node.signing_key.public_key().public_bytes_raw().hex()

    def named(self, port: int | None = None) -> TicketNode:
        return TicketNode(self.node.node_id, "127.0.0.1", port or self.port, self.public_key, self.node.node_id)

    def as_api(self) -> api.Node:
        return api.Node(
            node_id=self.node.node_id,
            host="127.0.0.1",
            port=self.port,
            weight=1.0,
            public_key=self.public_key,
            tls=False,
        )

    def put(self, data: bytes) -> Record:
        """Store an object past the wire (blocks)."""
        incoming = self.store.begin(object_id(data), len(data), "raw")
        for start in range(0, len(data), 1 << 20):
            incoming.write(data[start : start + (1 << 20)])
        (outcome,) = self.store.commit([incoming])
        assert isinstance(outcome, Record)
        return outcome


class Cluster:
    """Nodes by name, and the gateway's key."""

    def __init__(self, folder: Path, nursery: trio.Nursery, gateway: Gateway | None = None) -> None:
        self.key = Ed25519PrivateKey.generate()
        self._gateway = gateway
        self.nodes: dict[str, Running] = {}
        self._folder, self._nursery = folder, nursery

    async def start(self, name: str, *, reserve_bytes: int = 0, port: int = 0) -> Running:
        return await self._nursery.start(self._serve, name, reserve_bytes, port)

    async def _serve(self, name: str, reserve_bytes: int, port: int, task_status: trio.TaskStatus[Running]) -> None:
        listener = await listen(Address("127.0.0.1", port))
        with Store.open(self._folder / name, reserve_bytes) as store:
            async with listener, trio.open_nursery() as nursery:
                node = Node(
                    node_id=name,
                    store=store,
                    signing_key=self._signing_key(name),
                    trusted=Trusted.of_key(self._gateway_key()),
                    client_context=None,
                    nursery=nursery,
                )
                nursery.start_soon(node.committer.serve)
                nursery.start_soon(serve_flows, node, listener, None)
                running = self.nodes[name] = Running(node, store, port_of(listener), nursery.cancel_scope)
                task_status.started(running)
                await trio.sleep_forever()

    def _signing_key(self, name: str) -> Ed25519PrivateKey:
        return pki.load_signing_key(self._gateway.identities[name]) if self._gateway else Ed25519PrivateKey.generate()

    def _gateway_key(self) -> Ed25519PublicKey:
        if self._gateway is None:
            return self.key.public_key()
        return pki.public_key_from_hex(self._gateway.identities.public_key("gateway-1"))

    def advertise(self, name: str, address: Address | None = None) -> None:
        """Tell the gateway where a node is, once (in place of its heartbeat)."""
        assert self._gateway is not None
        running = self.nodes[name]
        beat = Heartbeat(
            node_id=name,
            incarnation=running.store.incarnation,
            started_ns=time.time_ns(),
            sequence=1,
            host="127.0.0.1",
            port=(address or running.address).port,
            failure_domain=name,
            free_bytes=1 << 40,
            used_bytes=0,
            objects=0,
            flows=0,
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(heartbeat.sign(beat, running.node.signing_key), ("127.0.0.1", self._gateway.heartbeat_port))

    def ticket(
        self,
        *rights: Right,
        transfer_id: str = "t",
        replicas: int = 1,
        lifetime_s: float = 120.0,
        max_bytes: int = 1 << 40,
        nodes: Sequence[TicketNode] | None = None,
    ) -> bytes:
        return tickets.sign(
            Ticket(
                transfer_id=transfer_id,
                holder="ws-1",
                client_fingerprint="",
                rights=list(rights),
                nodes=list(nodes or [node.named() for node in self.nodes.values()]),
                replicas=replicas,
                max_bytes=max_bytes,
                expires_at_s=time.time() + lifetime_s,
            ),
            self.key,
        )

    def go(self, *rights: Right, replicas: int = 1, **how: object) -> api.Go:
        return api.Go(
            transfer_id="t",
            nodes=[node.as_api() for node in self.nodes.values()],
            replicas=replicas,
            ticket=self.ticket(*rights, replicas=replicas, **how),
            expires_in_s=120.0,
        )

    @contextlib.asynccontextmanager
    async def flow(self, name: str, *rights: Right, **how: object) -> AsyncIterator[Flow]:
        ticket = self.ticket(*rights, **how)
        async with open_flow(self.nodes[name].address, None, ticket, node_id=name) as flow:
            yield flow


@contextlib.asynccontextmanager
async def open_cluster(folder: Path, *names: str, gateway: Gateway | None = None) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(folder, nursery, gateway)
        for name in names:
            await cluster.start(name)
        yield cluster
        nursery.cancel_scope.cancel()


def put_of(data: bytes, *, resumable: bool = False, onward: int = 0, encoding: str = "raw") -> Put:
    return Put(bytes.fromhex(object_id(data)), len(data), encoding, resumable, onward)


def listed(data: bytes, *node_ids: str, names: Sequence[str] = ()) -> api.StoredObject:
    return api.StoredObject(
        object_id=object_id(data),
        size_bytes=len(data),
        stored_bytes=len(data),
        encoding="raw",
        node_ids=list(node_ids),
        names=list(names),
        identity=Identity(),
    )


class Breaker:
    """A proxy before a node: ends each connection cleanly (FIN) after so many frames of the node's."""

    def __init__(self, target: Address, budgets: list[int]) -> None:
        self._target, self._budgets = target, budgets
        self.connections = 0

    async def serve(self, *, task_status: trio.TaskStatus[Address]) -> None:
        listener = await listen(Address("127.0.0.1", 0))
        task_status.started(Address("127.0.0.1", port_of(listener)))
        await trio.serve_listeners(self._handle, [listener])

    async def _handle(self, client: trio.SocketStream) -> None:
        self.connections += 1
        left = self._budgets.pop(0) if self._budgets else 1 << 60
        node = await trio.open_tcp_stream(self._target.host, self._target.port)
        async with client, node, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, client, node)
            with contextlib.suppress(trio.BrokenResourceError):  # one side hung up, which ends the proxy
                while left > 0 and (head := await _exactly(node, 4)):
                    await client.send_all(head + await _exactly(node, int.from_bytes(head, "big")))
                    left -= 1
                await client.send_eof()  # and what the client says goes on to the node: no RST


async def _pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):  # one side hung up
        while data := await source.receive_some(65536):
            await target.send_all(data)


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := await stream.receive_some(count - len(data))):
        data += more
    return data
