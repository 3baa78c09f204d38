"""One flow at a node: takes what the client sends, answers in batches, within the credit it gave.

Two tasks: one reads frames and hands objects to the committer, the other sends what has gathered in the outbox and
works off requests (GET, CHECK) in the order in which they came. Refuses to do: disk work of its own, judging tickets.
"""

import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from nodes import admission, credit
from nodes.committer import Outcome
from nodes.incoming import Incoming
from nodes.objectfile import Record
from nodes.outbox import Outbox
from nodes.streaming import blocks_of
from transfer.errors import CorruptError, FascicleError, FullError, NotStoredError, ProtocolError
from transfer.protocol.connection import ServerConnection
from transfer.protocol.frames import ABANDONED, LAST, Data, Frame, encode_control, encode_data_header
from transfer.protocol.messages import (
    VERSION,
    Bye,
    Check,
    Checked,
    Get,
    Hello,
    Object,
    Ping,
    Pong,
    Put,
    Reserve,
    Reserved,
    Resume,
    Welcome,
)
from transfer.receipts import Receipt
from transfer.stream import Stream
from transfer.tickets import Ticket

if TYPE_CHECKING:
    from nodes.server import Node

GREETING_S: Final = 10.0
SILENCE_S: Final = 300.0  # of a client that has nothing under way; in the middle of an object it is as long
SEND_S: Final = 120.0  # for a client that does not read what it asked for
OPEN_OBJECTS_MAX: Final = 4096
REQUESTS_MAX: Final = 64
FRAMES_MAX: Final = 1024  # queued to be sent, such as PONGs for a client that does not read them


class Session:
    """The node's end of one flow."""

    def __init__(self, node: "Node", stream: Stream) -> None:
        self._node = node
        self._stream = stream
        self._connection = ServerConnection(node.buffers.take)
        self._outbox = Outbox()
        self._requests: deque[Get | Check] = deque()
        self._open_objects = 0  # put and not answered
        self._held_bytes = 0  # in memory, to be released as credit
        self._put_held_bytes = 0  # of these, of the object under way
        self._changed = trio.Event()  # something was answered
        self._done_reading = False
        self._put: Put | None = None
        self._incoming: Incoming | None = None  # None while the body of a PUT is only counted
        self._here: Record | None = None  # the object of this PUT is stored already
        self._signed = b""
        self._ticket: Ticket | None = None

    async def run(self) -> None:
        """Serve the flow to its end; a client that breaks the rules is told why, and the flow ends.

        Raises:
            FascicleError: for the log; it has been told to the client if that was possible.
        """
        try:
            await self._greet()
            with self._node.counted_flow() if self._sends else contextlib.nullcontext():
                await self._welcome()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._reply)
                    await self._read()
        finally:
            await self._abandon()

    async def refuse(self, error: FascicleError) -> None:
        """Tell the client, briefly trying, why its flow is closed."""
        self._outbox.refuse(b"", error.code, error.message)
        with trio.move_on_after(1.0):
            await self._stream.send(self._outbox.take_frames())

    @property
    def ticket(self) -> Ticket:
        """The ticket that opened the flow."""
        if self._ticket is None:
            raise ProtocolError("no ticket has been shown")
        return self._ticket

    @property
    def _sends(self) -> bool:
        return "put" in self.ticket.rights

    async def _greet(self) -> None:
        with trio.move_on_after(GREETING_S):
            while (hello := next(self._connection.frames(), None)) is None:
                if not await self._receive():
                    raise ProtocolError("the client went away before its greeting")
            if not isinstance(hello, Hello):
                raise ProtocolError("the first frame is not HELLO")
            self._ticket = self._node.admit(hello.ticket, self._stream.peer)
            if self._sends:
                self._node.check_room_for_flow()
            self._signed = hello.ticket
            return  # nothing waits between the check and the count, or more flows than that could pass
        raise ProtocolError(f"no greeting within {GREETING_S:.0f} s")

    async def _welcome(self) -> None:
        node = self._node
        window = credit.window_bytes(node.flows)
        welcome = Welcome(VERSION, node.node_id, node.incarnation, window, node.free_bytes())
        await self._send(self._connection.welcome(welcome))

    # Reading

    async def _read(self) -> None:
        while not self._done_reading:
            for frame in self._connection.frames():
                await self._take(frame)
            await self._let_replies_catch_up()
            if not self._done_reading and not await self._receive():
                self._connection.end_of_stream()
                self._end_reading()

    async def _receive(self) -> bool:
        with trio.move_on_after(SILENCE_S):
            reader = self._connection.reader
            count = await self._stream.receive_into(reader.buffer(), reader.wanted_bytes)
            reader.received(count)
            return count > 0
        raise ProtocolError(f"nothing came for {SILENCE_S:.0f} s")

    async def _let_replies_catch_up(self) -> None:
        """Read no more while too much waits to be answered: the back-pressure that credit does not give."""
        while (
            self._open_objects > OPEN_OBJECTS_MAX
            or len(self._requests) > REQUESTS_MAX
            or len(self._outbox.frames) > FRAMES_MAX
        ):
            await self._changed.wait()

    def _end_reading(self) -> None:
        self._done_reading = True
        self._outbox.wake()

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Put():
                await self._take_put(frame)
            case Data():
                await self._take_data(frame)
            case Get() | Check():
                admission.require(self.ticket, "get" if isinstance(frame, Get) else "check")
                self._requests.append(frame)
                self._outbox.wake()
            case Reserve():
                self._take_reserve(frame)
            case Ping():
                self._outbox.say(Pong(frame.token))
            case Bye():
                self._end_reading()

    def _take_reserve(self, frame: Reserve) -> None:
        admission.require(self.ticket, "reserve")
        free = self._node.free_bytes()
        if frame.size_bytes > free:
            error = FullError(f"{self._node.node_id} has {free} bytes free, {frame.size_bytes} are asked for")
            self._outbox.refuse(b"", error.code, error.message)
            return
        self._outbox.say(Reserved(frame.transfer_id, free, self._node.flows, self._node.objects()))

    async def _take_put(self, put: Put) -> None:
        admission.require(self.ticket, "put")
        self._put = put
        self._open_objects += 1
        object_id = put.object_id.hex()
        # One failed open(2) in the common case: cheaper here than the way to a thread and back.
        self._here = self._node.store.contains(object_id)
        if self._here is not None:
            if put.resumable:
                self._finish_put()
            return
        try:
            if not admission.is_node(self._stream.peer):  # what a node hands on was counted where it came in
                self._node.spend(self.ticket, put.size_bytes)
            self._incoming = await self._begin(put, object_id)
        except FascicleError as error:
            self._refuse_put(put, error)
            return
        if put.resumable:
            self._outbox.frames.append(self._connection.resume(Resume(put.object_id, self._incoming.offset_bytes)))
            self._outbox.wake()

    async def _begin(self, put: Put, object_id: str) -> Incoming:
        begin = partial(self._node.store.begin, object_id, put.size_bytes, put.encoding, resumable=put.resumable)
        return await trio.to_thread.run_sync(begin) if put.resumable else begin()

    async def _take_data(self, data: Data) -> None:
        length = len(data.payload)
        self._held_bytes += length
        kept = 0
        if self._incoming is not None:
            kept = await self._write(self._incoming, data)
        self._put_held_bytes += kept
        self._release(length - kept)
        if data.flags & ABANDONED:
            await self._abandon()
            self._close_put()
        elif data.flags & LAST and self._put is not None:
            self._finish_put()

    async def _write(self, incoming: Incoming, data: Data) -> int:
        """Hand a payload to the store; return how much of it stays in memory until the object is committed."""
        try:
            if incoming.fits(len(data.payload)):
                incoming.write(data.payload)
                return len(data.payload)
            await trio.to_thread.run_sync(incoming.write, data.payload)
        except FascicleError as error:
            await self._abandon()
            if self._put is not None:
                self._refuse_put(self._put, error)
        return 0

    def _finish_put(self) -> None:
        put, incoming, here = self._put, self._incoming, self._here
        held_bytes, self._put_held_bytes = self._put_held_bytes, 0
        self._put = self._incoming = self._here = None
        if put is None:
            return
        if here is not None:
            self._replicate(put, here)
        elif incoming is not None:
            self._node.committer.submit(incoming, partial(self._committed, put, held_bytes))

    def _close_put(self) -> None:
        """Forget a PUT that the client gave up, or that has been answered already."""
        if self._put is not None:
            self._answered()
        self._put = self._incoming = self._here = None

    async def _abandon(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(incoming.abandon)
            held_bytes, self._put_held_bytes = self._put_held_bytes, 0
            self._release(held_bytes)

    def _refuse_put(self, put: Put, error: FascicleError) -> None:
        """Answer a PUT with a refusal; what still comes of its body is only counted."""
        self._node.metrics.refused(error.code)
        self._outbox.refuse(put.object_id, error.code, error.message)
        self._put = self._here = None
        self._answered()

    # What the committer and the replicator say

    def _committed(self, put: Put, held_bytes: int, outcome: Outcome) -> None:
        self._release(held_bytes)
        if isinstance(outcome, Record):
            self._node.metrics.stored(outcome)
            self._replicate(put, outcome)
            return
        self._node.metrics.refused(outcome.code)
        self._outbox.refuse(put.object_id, outcome.code, outcome.message)
        self._answered()

    def _replicate(self, put: Put, record: Record) -> None:
        if put.onward == 0:
            self._durable(record, [])
            return
        on_done = partial(self._replicated, record)
        self._node.replicator.submit(record, put.onward, self.ticket, self._signed, on_done)

    def _replicated(self, record: Record, outcome: list[str] | FascicleError) -> None:
        if isinstance(outcome, FascicleError):
            self._outbox.refuse(bytes.fromhex(record.object_id), outcome.code, outcome.message)
            self._answered()
            return
        self._durable(record, outcome)

    def _durable(self, record: Record, others: list[str]) -> None:
        self._outbox.acknowledge(self._node.receipt(record, others))
        self._answered()

    def _answered(self) -> None:
        self._open_objects -= 1
        self._changed.set()
        self._changed = trio.Event()
        self._outbox.wake()

    def _release(self, length: int) -> None:
        self._held_bytes -= length
        granted = credit.grant_bytes(self._node.flows, self._connection.outstanding_bytes, self._held_bytes)
        if granted:
            self._outbox.frames.append(self._connection.grant(granted))
            self._outbox.wake()

    # Replying

    async def _reply(self) -> None:
        while True:
            await self._outbox.wait()
            while self._outbox.receipts or self._outbox.frames or self._requests:
                await self._send_outbox()
                if self._requests:
                    await self._answer(self._requests.popleft())
                    self._changed.set()
                    self._changed = trio.Event()
            if self._done_reading and not self._open_objects:
                return

    async def _send_outbox(self) -> None:
        if self._outbox.receipts:
            self._outbox.frames.append(
                encode_control(self._node.sign(self.ticket.transfer_id, self._outbox.take_receipts()))
            )
        if self._outbox.frames:
            await self._send(self._outbox.take_frames())
            self._changed.set()
            self._changed = trio.Event()

    async def _send(self, *parts: bytes | memoryview) -> None:
        with trio.move_on_after(SEND_S):
            await self._stream.send(*parts)
            return
        raise ProtocolError(f"the client read nothing for {SEND_S:.0f} s")

    async def _answer(self, request: Get | Check) -> None:
        if isinstance(request, Get):
            await self._answer_get(request)
        else:
            await self._answer_check(request)

    async def _answer_get(self, get: Get) -> None:
        object_id = get.object_id.hex()
        try:
            reader = await trio.to_thread.run_sync(self._node.store.read, object_id)
            with reader:
                record = reader.record
                await self._send(
                    encode_control(Object(get.object_id, record.size_bytes, record.stored_bytes, record.encoding))
                )
                offset = 0
                async with contextlib.aclosing(blocks_of(reader)) as blocks:
                    async for block in blocks:
                        flags = LAST if offset + len(block) == record.stored_bytes else 0
                        await self._send(encode_data_header(offset, len(block), flags), block)
                        await self._send_outbox()
                        offset += len(block)
            self._node.metrics.served(record)
        except ProtocolError:
            raise
        except FascicleError as error:
            self._outbox.refuse(get.object_id, error.code, error.message)

    async def _answer_check(self, check: Check) -> None:
        sound: list[Receipt] = []
        missing: list[bytes] = []
        corrupt: list[bytes] = []
        for object_id in check.object_ids:
            look = partial(self._node.store.check, object_id.hex(), deep=check.deep)
            try:
                record = await trio.to_thread.run_sync(look)
            except NotStoredError:
                missing.append(object_id)
            except CorruptError:
                corrupt.append(object_id)
            else:
                sound.append(self._node.receipt(record))
        self._outbox.say(Checked(self._node.sign(self.ticket.transfer_id, sound), missing, corrupt))
