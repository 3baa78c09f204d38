"""One flow at a node: takes what the client sends, answers in batches, within the credit it gave.

Two tasks: one reads frames and hands them on, the other sends what has gathered in the outbox and works off requests
(GET, CHECK, and the gateway's own) in the order in which they came. Refuses to do: uploads (`nodes.uploads`), judging
tickets.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from nodes import admission, credit
from nodes.answers import answer_check, answer_get, answer_list
from nodes.copying import answer_copy
from nodes.discarding import answer_discard, answer_purge, answer_restore, answer_trash
from nodes.node import Node
from nodes.outbox import Outbox
from nodes.uploads import Uploads
from transfer.errors import FascicleError, FullError, ProtocolError
from transfer.protocol.connection import ServerConnection
from transfer.protocol.frames import Data, Frame, encode_control
from transfer.protocol.messages import (
    VERSION,
    Bye,
    Check,
    Checked,
    Copied,
    Copy,
    Discard,
    Done,
    Get,
    Hello,
    List,
    Listed,
    Ping,
    Pong,
    Purge,
    Put,
    Reserve,
    Reserved,
    Restore,
    Right,
    Trash,
    Trashed,
    Welcome,
)
from transfer.stream import Stream
from transfer.tickets import Ticket

GREETING_S: Final = 10.0
SILENCE_S: Final = 300.0  # of a client that has nothing under way; in the middle of an object it is as long
LOOK_S: Final = 10.0  # between looks whether that long has passed
SEND_S: Final = 120.0  # for a client that does not read what it asked for
OPEN_OBJECTS_MAX: Final = 4096
REQUESTS_MAX: Final = 64
Request = Get | Check | List | Copy | Discard | Restore | Purge | Trash
_KEEPING: Final[dict[type, Right]] = dict.fromkeys((List, Copy, Discard, Restore, Purge, Trash), "repair")
NEEDED: Final[dict[type, Right]] = {Get: "get", Check: "check", **_KEEPING}
FRAMES_MAX: Final = 1024  # queued to be sent, such as PONGs for a client that does not read them


async def serve_session(node: Node, stream: Stream, admit: Callable[[Ticket], None]) -> None:
    """Serve one flow to its end; a client that breaks the rules is told why, and the flow ends.

    `admit` is called once with the ticket that opens it, and raises BusyError when there is no place for it.

    Raises:
        FascicleError: for the log; it has been told to the client if that was possible.
    """
    connection = ServerConnection(node.buffers.take)
    ticket, signed = await _greet(node, stream, connection, admit)
    session = Session(node, stream, connection, ticket, signed)
    with (
        node.counted_flow(stream.peer) if "put" in ticket.rights else contextlib.nullcontext(),
        node.ended_when_revoked(ticket, stream.peer),
    ):
        await session.run()


async def refuse(stream: Stream, error: FascicleError) -> None:
    """Tell the client, briefly trying, why its flow is closed."""
    outbox = Outbox()
    outbox.refuse(b"", error.code, error.message)
    with trio.move_on_after(1.0):
        await stream.send(outbox.take_frames())


async def _greet(
    node: Node, stream: Stream, connection: ServerConnection, admit: Callable[[Ticket], None]
) -> tuple[Ticket, bytes]:
    """Return the ticket that the client shows, and its bytes.

    Raises:
        ProtocolError, UnauthorisedError, BusyError: the client may not go on.
    """
    hello: Frame | None = None
    with trio.move_on_after(GREETING_S):
        while (hello := next(connection.frames(), None)) is None:
            count = await stream.receive_into(connection.reader.buffer())
            connection.reader.received(count)
            if not count:
                raise ProtocolError("the client went away before its greeting")
    if hello is None:
        raise ProtocolError(f"no greeting within {GREETING_S:.0f} s")
    if not isinstance(hello, Hello):
        raise ProtocolError("the first frame is not HELLO")
    ticket = node.admit(hello.ticket, stream.peer)
    if "put" in ticket.rights:
        node.check_room_for_flow(stream.peer)  # nothing waits between this and the count, or more flows could pass
    admit(ticket)
    return ticket, hello.ticket


class Session:
    """The conversation after the greeting."""

    def __init__(self, node: Node, stream: Stream, connection: ServerConnection, ticket: Ticket, signed: bytes) -> None:
        self._node, self._stream, self._connection, self._ticket = node, stream, connection, ticket
        self._outbox = Outbox()
        self._requests: deque[Request] = deque()
        self._changed = trio.Event()  # something was answered or sent
        self._done_reading = False
        self._receiving = self._answering = False
        self._turns = 0  # of reading: how often it began or came back
        self._uploads = Uploads(
            node, connection, self._outbox, ticket=ticket, signed=signed, peer=stream.peer, on_answer=self._note_change
        )

    async def run(self) -> None:
        """Welcome the client, then read and reply until it has gone and all is answered."""
        try:
            await self._welcome()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reply)
                async with trio.open_nursery() as watched:
                    watched.start_soon(self._watch_silence)
                    await self._read()
                    watched.cancel_scope.cancel()
        finally:
            await self._uploads.abandon()

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
        reader = self._connection.reader
        self._receiving, self._turns = True, self._turns + 1
        count = await self._stream.receive_into(reader.buffer(), reader.wanted_bytes)
        self._receiving, self._turns = False, self._turns + 1
        reader.received(count)
        return count > 0

    async def _watch_silence(self) -> None:
        """End the flow of a client that says nothing for `SILENCE_S` while it is listened to and waits for no answer.

        By a look now and then: a time-out of its own for every reading was a sixteenth of the loop's work. While one
        frame is worked on, such as a PUT of which a large part is here and is read again, the client's PINGs wait
        behind it: then a PONG says unasked that this node lives.
        """
        silent_s = 0.0
        while silent_s < SILENCE_S:
            turns = self._turns
            await trio.sleep(LOOK_S)
            stands = self._turns == turns
            if stands and not self._receiving:
                self._outbox.say(Pong(0))
            silent = stands and self._receiving and not self._answering
            silent_s = silent_s + LOOK_S if silent else 0.0
        raise ProtocolError(f"nothing came for {SILENCE_S:.0f} s")

    async def _let_replies_catch_up(self) -> None:
        """Read no more while too much waits to be answered or sent: the back-pressure that credit does not give."""
        while (
            self._uploads.unanswered > OPEN_OBJECTS_MAX
            or len(self._requests) > REQUESTS_MAX
            or len(self._outbox.frames) > FRAMES_MAX
        ):
            await self._changed.wait()

    def _end_reading(self) -> None:
        self._done_reading = True
        self._outbox.wake()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Put():
                await self._uploads.take_put(frame)
            case Data():
                await self._uploads.take_data(frame)
            case Get() | Check() | List() | Copy() | Discard() | Restore() | Purge() | Trash():
                admission.require(self._ticket, NEEDED[type(frame)])
                self._requests.append(frame)
                self._outbox.wake()
            case Reserve():
                self._take_reserve(frame)
            case Ping():
                if not frame.token:
                    self._node.committer.hurry()
                self._outbox.say(Pong(frame.token))
            case Bye():
                self._end_reading()

    def _take_reserve(self, frame: Reserve) -> None:
        admission.require(self._ticket, "reserve")
        free = self._node.free_bytes()
        if frame.size_bytes > free:
            error = FullError(f"{self._node.node_id} has {free} bytes free, {frame.size_bytes} are asked for")
            self._outbox.refuse(b"", error.code, error.message)
            return
        self._outbox.say(Reserved(frame.transfer_id, free, self._node.flows, self._node.objects()))

    # Replying

    async def _reply(self) -> None:
        while True:
            await self._outbox.wait()
            while self._outbox.receipts or self._outbox.frames or self._requests:
                await self._send_outbox()
                if self._requests:
                    self._answering = True
                    await self._answer(self._requests.popleft())
                    self._answering = False
                    self._note_change()
            if self._done_reading and not self._uploads.unanswered:
                return

    async def _send_outbox(self) -> None:
        if self._outbox.receipts:
            signed = self._node.sign(self._ticket.transfer_id, self._outbox.take_receipts())
            self._outbox.frames.append(encode_control(signed))
        if self._outbox.frames:
            await self._send(self._outbox.take_frames())
            self._note_change()

    async def _send(self, *parts: bytes | memoryview) -> None:
        with trio.move_on_after(SEND_S):
            await self._stream.send(*parts)
            return
        raise ProtocolError(f"the client read nothing for {SEND_S:.0f} s")

    async def _answer(self, request: Request) -> None:
        if isinstance(request, Get):
            await self._give(request)
            return
        async with trio.open_nursery() as nursery:
            answered = trio.Event()
            nursery.start_soon(self._work_off, request, answered)
            while not answered.is_set():  # meanwhile a PONG says that this node lives, and receipts need not wait
                await self._outbox.wait()
                await self._send_outbox()

    async def _work_off(
        self, request: Check | List | Copy | Discard | Restore | Purge | Trash, answered: trio.Event
    ) -> None:
        answer = await self._answer_keeper(request)
        answered.set()
        self._outbox.say(answer)

    async def _answer_keeper(
        self, request: Check | List | Copy | Discard | Restore | Purge | Trash
    ) -> Checked | Listed | Copied | Done | Trashed:
        node, name = self._node, self._ticket.transfer_id
        answer: Checked | Listed | Copied | Done | Trashed
        match request:
            case Check():
                answer = await answer_check(node, request, name)
            case List():
                answer = await answer_list(node, request)
            case Copy():
                answer = await answer_copy(node, request)
            case Discard():
                answer = await answer_discard(node, request)
            case Restore():
                answer = await answer_restore(node, request, name)
            case Purge():
                answer = await answer_purge(node, request)
            case Trash():
                answer = await answer_trash(node, request)
        return answer

    async def _give(self, request: Get) -> None:
        try:
            async with contextlib.aclosing(answer_get(self._node, request)) as pieces:
                async for piece in pieces:
                    await self._send(*piece)
                    await self._send_outbox()
        except ProtocolError:
            raise
        except FascicleError as error:
            self._outbox.refuse(request.object_id, error.code, error.message)
