"""Replication inside the cloud: an object that an agent sent once goes on to other nodes of its ticket.

One link a peer, opened when first needed with the ticket of the object at hand and shared by all transfers (with one a
ticket, many nodes would fill each other's flows); objects are pipelined on it and receipts come back in batches. The
first node acknowledges to the agent only when all replicas are durable. Refuses to do: repair of what was lost later.
"""

import contextlib
import hashlib
import math
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from nodes.objectfile import Record
from nodes.store import Store
from nodes.streaming import blocks_of
from transfer import errors, receipts
from transfer.addresses import Address
from transfer.errors import BusyError, FascicleError, StorageError, UnauthorisedError, UnreachableError
from transfer.flow import Flow, open_flow
from transfer.groups import first_error_only
from transfer.log import get_logger
from transfer.protocol.messages import Put, Refused, Stored
from transfer.silence import serve_watch
from transfer.tickets import Ticket, TicketNode
from transfer.tls import Peer

log = get_logger()
IDLE_S: Final = 5.0

OnReplicated = Callable[[list[str] | FascicleError], None]


def rank(object_id: str, nodes: Sequence[TicketNode], own: TicketNode) -> list[TicketNode]:
    """Return the other nodes in the order in which they should hold this object's replicas.

    Rendezvous hashing (Thaler and Ravishankar, 1998), other failure domains first.
    """

    def weight(node: TicketNode) -> tuple[bool, bytes]:
        same_domain = node.failure_domain == own.failure_domain
        return same_domain, hashlib.sha256(f"{node.node_id} {object_id}".encode()).digest()

    return sorted((node for node in nodes if node.node_id != own.node_id), key=weight)


class Replicator:
    """Makes replicas for all flows of this node; none at a peer whose certificate `is_revoked`."""

    def __init__(
        self,
        store: Store,
        node_id: str,
        context: ssl.SSLContext | None,
        nursery: trio.Nursery,
        is_revoked: Callable[[Peer], bool],
    ) -> None:
        self._store, self._is_revoked = store, is_revoked
        self._node_id = node_id
        self._context = context
        self._nursery = nursery
        self._links: dict[str, _Link] = {}

    def submit(self, record: Record, onward: int, ticket: Ticket, signed: bytes, on_done: OnReplicated) -> None:
        """Make `onward` replicas; `on_done` gets the ids of the nodes that hold one, or why that failed."""
        self._nursery.start_soon(self._replicate, record, onward, ticket, signed, on_done)

    def end_revoked(self) -> None:
        """End the links to peers that are revoked by now; what waits for them goes to others."""
        for link in self._links.values():
            link.end_if_revoked()

    async def _replicate(
        self, record: Record, onward: int, ticket: Ticket, signed: bytes, on_done: OnReplicated
    ) -> None:
        own = next(node for node in ticket.nodes if node.node_id == self._node_id)
        holders: list[str] = []
        reason: FascicleError = BusyError(
            f"{onward} more replicas wished than the ticket has nodes; ask for fewer or add nodes"
        )
        for node in rank(record.object_id, ticket.nodes, own):
            if len(holders) == onward:
                break
            try:
                await self._link(node, signed).replicate(record)
                holders.append(node.node_id)
            except _UnreadableHereError as error:  # whatever the other nodes are like
                on_done(error.reason)
                return
            except FascicleError as error:
                reason = error
        on_done(holders if len(holders) == onward else _told(reason, ticket))

    def _link(self, node: TicketNode, signed: bytes) -> "_Link":
        link = self._links.get(node.node_id)
        if link is None or link.ended:
            link = self._links[node.node_id] = _Link(self._store, node, signed, self._context, self._is_revoked)
            self._nursery.start_soon(self._run_link, node.node_id, link)
        return link

    async def _run_link(self, peer: str, link: "_Link") -> None:
        try:
            await link.run()
        except FascicleError as error:
            log.warning("replica_link_failed", peer=peer, reason=error.message)
        finally:
            if self._links.get(peer) is link:
                del self._links[peer]


def _told(reason: FascicleError, ticket: Ticket) -> FascicleError:
    """Return what the sender is told: to come with a new ticket when this one no longer opens links, else to wait."""
    if isinstance(reason, UnauthorisedError) and ticket.expires_at_s < time.time():
        return reason
    return BusyError(f"replicas are not possible now: {reason.message}")


class _UnreadableHereError(Exception):
    """This node's own disk does not give the object."""

    def __init__(self, reason: StorageError) -> None:
        super().__init__(reason)
        self.reason = reason


class _Waiter:
    """One object on its way to a peer."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.done = trio.Event()
        self.error: FascicleError | _UnreadableHereError | None = None


class _Link:
    """One flow to one peer."""

    def __init__(
        self,
        store: Store,
        node: TicketNode,
        signed: bytes,
        context: ssl.SSLContext | None,
        is_revoked: Callable[[Peer], bool],
    ) -> None:
        self.ended = False
        self._store, self._node, self._signed, self._context = store, node, signed, context
        self._is_revoked = is_revoked
        self._peer: Peer | None = None
        self._scope = trio.CancelScope()
        # As many as there are objects on credit and not acknowledged; each waits here as a name only.
        self._send, self._receive = trio.open_memory_channel[_Waiter](math.inf)
        self._waiting: dict[str, _Waiter] = {}

    async def replicate(self, record: Record) -> None:
        """Wait until the peer holds the object durably.

        Raises:
            FascicleError: it does not.
            _UnreadableHereError: it was not sent.
        """
        waiter = self._waiting.get(record.object_id)
        if waiter is None:
            waiter = self._waiting[record.object_id] = _Waiter(record)
            self._send.send_nowait(waiter)
        await waiter.done.wait()
        if waiter.error is not None:
            raise waiter.error

    def end_if_revoked(self) -> None:
        """End the link to a peer that is not good any more."""
        if self._peer is not None and self._is_revoked(self._peer):
            self.ended = True
            self._scope.cancel()

    async def run(self) -> None:
        """Serve until idle or broken; whoever still waits then is told."""
        reason: FascicleError = UnreachableError(f"{self._node.node_id} does not answer")
        try:
            with first_error_only(), self._scope:
                await self._converse()
        except FascicleError as error:
            reason = error
            raise
        finally:
            self.ended = True
            for waiter in self._waiting.values():
                waiter.error = reason
                waiter.done.set()
            self._waiting.clear()

    async def _converse(self) -> None:
        address = Address(self._node.host, self._node.port)
        opening = open_flow(address, self._context, self._signed, node_id=self._node.node_id)
        async with opening as flow, trio.open_nursery() as nursery:
            self._peer = flow.peer
            self.end_if_revoked()
            nursery.start_soon(self._write, flow)
            nursery.start_soon(serve_watch, flow, lambda: bool(self._waiting))
            await self._read(flow)
            self.ended = True  # the peer has closed, so there is nothing to write to any more
            nursery.cancel_scope.cancel()

    async def _write(self, flow: Flow) -> None:
        while True:
            waiter = None
            with trio.move_on_after(IDLE_S):
                waiter = await self._receive.receive()
            if waiter is not None:
                await self._put(flow, waiter)
            elif not self._waiting:
                self.ended = True
                await flow.bye()
                return

    async def _put(self, flow: Flow, waiter: _Waiter) -> None:
        try:
            await self._send_object(flow, waiter.record)
        except (errors.NotStoredError, errors.CorruptError) as error:
            self._settle(waiter.record.object_id, error)
        except StorageError as error:  # of this object alone: the flow goes on
            self._settle(waiter.record.object_id, _UnreadableHereError(error))

    async def _send_object(self, flow: Flow, record: Record) -> None:
        put = Put(bytes.fromhex(record.object_id), record.size_bytes, record.encoding, False, 0)
        reader = await trio.to_thread.run_sync(self._store.read, record.object_id)
        with reader:
            async with contextlib.aclosing(blocks_of(reader)) as blocks:
                await flow.put_stream(put, blocks)

    async def _read(self, flow: Flow) -> None:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self._node.public_key))
        async with contextlib.aclosing(flow.frames()) as frames:
            async for frame in frames:
                match frame:
                    case Stored():
                        for receipt in receipts.verify(frame, key).receipts:
                            self._settle(receipt.object_id.hex(), None)
                    case Refused():
                        self._settle(frame.object_id.hex(), errors.from_code(frame.code, frame.text))
        if self._waiting:
            raise UnreachableError(f"{self._node.node_id} closed the flow")

    def _settle(self, object_id: str, error: FascicleError | _UnreadableHereError | None) -> None:
        waiter = self._waiting.pop(object_id, None)
        if waiter is not None:
            waiter.error = error
            waiter.done.set()
