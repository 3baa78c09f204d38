"""The uploads of one flow: one object at a time comes in, any number wait to be durable, each is answered once.

An object is answered by a receipt when it is durable here and on its replicas, or by a refusal; what still comes of a
refused one is only counted. Payload that is let go becomes credit again. Refuses to do: reading from and sending to
the client (`nodes.session`), disk work of its own (`nodes.committer`).
"""

from collections.abc import Callable
from functools import partial

import trio

from nodes import admission, credit
from nodes.committer import Outcome
from nodes.incoming import Incoming
from nodes.node import Node
from nodes.objectfile import Record
from nodes.outbox import Outbox
from transfer.errors import CorruptError, FascicleError, NotStoredError
from transfer.protocol.connection import ServerConnection
from transfer.protocol.frames import ABANDONED, LAST, Data
from transfer.protocol.messages import Put, Resume
from transfer.tickets import Ticket
from transfer.tls import Peer


class Uploads:
    """What a client puts on one flow. `on_answer` is called whenever an object has been answered for."""

    def __init__(
        self,
        node: Node,
        connection: ServerConnection,
        outbox: Outbox,
        *,
        ticket: Ticket,
        signed: bytes,
        peer: Peer | None,
        on_answer: Callable[[], None],
    ) -> None:
        self.unanswered = 0
        self._node, self._connection, self._outbox = node, connection, outbox
        self._ticket, self._signed, self._on_answer = ticket, signed, on_answer
        # What a node hands on was counted where it came in. Without certificates a replica looks like any other put.
        self._counted = not admission.is_node(peer) and (peer is not None or ticket.replicas == 1)
        self._held_bytes = 0  # in memory, to be released as credit
        self._put_held_bytes = 0  # of these, of the object under way
        self._put: Put | None = None
        self._incoming: Incoming | None = None  # None while the body of a PUT is only counted
        self._here: Record | None = None  # the object of this PUT is stored already

    async def take_put(self, put: Put) -> None:
        """Begin an object.

        Raises:
            UnauthorisedError: the ticket does not allow it.
        """
        admission.require(self._ticket, "put")
        self._put = put
        self.unanswered += 1
        object_id = put.object_id.hex()
        try:
            self._here = await self._find(object_id)
            if self._here is not None:
                if put.resumable:
                    self._finish()
                return
            self._incoming = await self._begin(put, object_id)
        except FascicleError as error:
            self._refuse(put, error)
            return
        if put.resumable:
            resume = Resume(put.object_id, self._incoming.offset_bytes)
            self._outbox.queue(self._connection.resume(resume))

    async def take_data(self, data: Data) -> None:
        """Take a part of the object under way."""
        length = len(data.payload)
        self._held_bytes += length
        kept = 0
        if self._incoming is not None:
            kept = await self._write(self._incoming, data)
        self._put_held_bytes += kept
        self._release(length - kept)
        if data.flags & ABANDONED:
            await self.abandon()
            self._close()
        elif data.flags & LAST and self._put is not None:
            self._finish()

    async def abandon(self) -> None:
        """Let go of the object under way; what came of a resumable one is kept for another time."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(incoming.abandon)
            held_bytes, self._put_held_bytes = self._put_held_bytes, 0
            self._release(held_bytes)

    async def _find(self, object_id: str) -> Record | None:
        """Return the copy that is here already, after reading every byte of it: the one that comes is let go.

        Raises:
            StorageError: the disk failed.
        """
        store = self._node.store
        # One failed open(2) in the common case: cheaper here than the way to a thread and back.
        if store.contains(object_id) is None:
            return None
        try:
            return await trio.to_thread.run_sync(partial(store.check, object_id, deep=True))
        except (CorruptError, NotStoredError):
            return None  # set aside: what comes takes its place

    async def _begin(self, put: Put, object_id: str) -> Incoming:
        begin = partial(self._node.store.begin, object_id, put.size_bytes, put.encoding, resumable=put.resumable)
        return await trio.to_thread.run_sync(begin) if put.resumable else begin()

    async def _write(self, incoming: Incoming, data: Data) -> int:
        """Hand a payload to the store; return how much more stays in memory than before: less, after a spill."""
        length, before_bytes = len(data.payload), incoming.pending_bytes
        try:
            if self._counted:
                self._node.spend(self._ticket, length)
            if incoming.fits(length):
                incoming.write(data.payload)
            else:
                await trio.to_thread.run_sync(incoming.write, data.payload)
            return incoming.pending_bytes - before_bytes
        except FascicleError as error:
            await self.abandon()
            if self._put is not None:
                self._refuse(self._put, error)
        return 0

    def _finish(self) -> None:
        put, incoming, here = self._put, self._incoming, self._here
        held_bytes, self._put_held_bytes = self._put_held_bytes, 0
        self._put = self._incoming = self._here = None
        if put is None:
            return
        if here is not None:
            self._replicate(put, here)
        elif incoming is not None:
            self._node.committer.submit(incoming, partial(self._committed, put, held_bytes))

    def _close(self) -> None:
        """Forget a PUT that the client gave up, or that has been answered already."""
        if self._put is not None:
            self._answered()
        self._put = self._incoming = self._here = None

    def _refuse(self, put: Put, error: FascicleError) -> None:
        """Answer a PUT with a refusal while its body may still be coming."""
        self._put = self._here = None
        self._answer_refused(put.object_id, error)

    def _committed(self, put: Put, held_bytes: int, outcome: Outcome) -> None:
        self._release(held_bytes)
        if isinstance(outcome, Record):
            self._node.metrics.stored(outcome)
            self._replicate(put, outcome)
        else:
            self._answer_refused(put.object_id, outcome)

    def _replicate(self, put: Put, record: Record) -> None:
        if put.onward == 0:
            self._durable(record, [])
            return
        on_done = partial(self._replicated, record)
        self._node.replicator.submit(record, put.onward, self._ticket, self._signed, on_done)

    def _replicated(self, record: Record, outcome: list[str] | FascicleError) -> None:
        if isinstance(outcome, FascicleError):
            self._answer_refused(bytes.fromhex(record.object_id), outcome)
        else:
            self._durable(record, outcome)

    def _durable(self, record: Record, others: list[str]) -> None:
        self._outbox.acknowledge(self._node.receipt(record, others))
        self._answered()

    def _answer_refused(self, object_id: bytes, error: FascicleError) -> None:
        self._node.metrics.refused(error.code)
        self._outbox.refuse(object_id, error.code, error.message)
        self._answered()

    def _answered(self) -> None:
        self.unanswered -= 1
        self._outbox.wake()
        self._on_answer()

    def _release(self, length: int) -> None:
        self._held_bytes -= length
        granted = credit.grant_bytes(self._node.flows, self._connection.outstanding_bytes, self._held_bytes)
        if granted:
            self._outbox.queue(self._connection.grant(granted))
