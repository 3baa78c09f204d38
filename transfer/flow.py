"""A flow seen from the end that asks: one connection to a node, opened with a ticket.

One task sends (`put`, `ask`), another iterates `frames()`, which keeps the credit and passes on everything else. Used
by senders, by readers, and by nodes that make replicas. Refuses to do: retries, choosing what to send.
"""

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import trio
from typing_extensions import Buffer

from transfer import errors
from transfer.addresses import Address
from transfer.control.shares import SHARE_BYTES, next_share_bytes
from transfer.control.sockets import UNSENT_BYTES_MAX
from transfer.control.tcp_info import TcpInfo
from transfer.errors import FascicleError, ProtocolError, UnreachableError
from transfer.protocol.connection import ClientConnection, State
from transfer.protocol.frames import ABANDONED, LAST, PAYLOAD_BYTES_MAX, Frame, encode_control
from transfer.protocol.messages import Control, Credit, Ping, Pong, Put, Refused, Resume, Welcome
from transfer.stream import Stream, connect
from transfer.tls import Peer

GREETING_S: Final = 10.0
LEAST_PAYLOAD_BYTES: Final = 64 << 10  # less credit than this is worth waiting for more
Turn = Callable[[int], Awaitable[int]]  # takes how much would go, returns how much may, when it may


class Flow:
    """An open flow; made by `open_flow`."""

    def __init__(
        self, stream: Stream, connection: ClientConnection, welcome: Welcome, turn: Turn | None = None
    ) -> None:
        self.welcome = welcome
        self.sent_bytes = 0
        self.received_bytes = 0
        self._stream = stream
        self._connection = connection
        self._turn = turn
        self._share_bytes = PAYLOAD_BYTES_MAX if turn is None else SHARE_BYTES
        if turn is not None:
            stream.limit_unsent(SHARE_BYTES)
        self._more_credit = trio.Event()
        self._awaited = b""  # the resumable object whose RESUME, or answer, `put_stream` waits for
        self._resume_bytes: int | None = None
        self._answered = False  # it was stored or refused before any byte of it
        self._resume_came = trio.Event()
        self._sending = self._said_bye = False
        self._pinged: trio.Event | None = None  # while a `ping` is being sent
        self._token = 0  # of the last PING whose PONG tells the round trip
        self._asked_s: float | None = None  # when that was sent; None where its PONG has come
        self._rtt_s = 0.0

    @property
    def peer(self) -> Peer | None:
        """Who the node's certificate names; None on a plain data plane."""
        return self._stream.peer

    async def wait_credit(self, wanted_bytes: int = 1) -> None:
        """Wait until a payload of `wanted_bytes` may be sent, or a good part of it.

        Raises:
            UnreachableError: the flow ended.
        """
        while self._connection.credit_bytes < min(wanted_bytes, LEAST_PAYLOAD_BYTES):
            self._check_open()
            await self._more_credit.wait()

    async def ask(self, message: Control) -> None:
        """Send one control frame."""
        await self._send(encode_control(message))

    async def ping(self) -> None:
        """Ask for a sign of life, from any task; not while another frame is being sent, which TCP shows itself."""
        if self._may_ping():
            await self._ping(0)

    async def time_ping(self) -> None:
        """Ask for a PONG that tells the round trip (`take_rtt_s`), unless one is under way; as `ping` otherwise."""
        if self._may_ping() and self._asked_s is None:
            self._token += 1
            self._asked_s = trio.current_time()
            await self._ping(self._token)

    def take_rtt_s(self) -> float:
        """Return the round trip that came in last, once; 0.0 where there is no new one."""
        rtt_s, self._rtt_s = self._rtt_s, 0.0
        return rtt_s

    def _may_ping(self) -> bool:
        """Not after BYE: the node reads no more, and what it has not read would end the flow by a reset."""
        return not (self._sending or self._pinged is not None or self._said_bye)

    async def _ping(self, token: int) -> None:
        self._check_open()
        self._pinged = trio.Event()
        try:
            await self._stream.send(encode_control(Ping(token)))
        finally:
            self._pinged.set()
            self._pinged = None

    async def put(self, put: Put, body: Buffer) -> None:
        """Send an object that is in memory as its stored bytes."""
        view = memoryview(body).cast("B")
        before: tuple[Buffer, ...] = (self._connection.put(put),)
        offset = 0
        while True:
            length = await self._wait_share(len(view) - offset)
            flags = LAST if offset + length == len(view) else 0
            header = self._connection.data_header(offset, length, flags)
            await self._send_share(*before, header, view[offset : offset + length])
            before = ()
            offset += length
            if flags:
                return

    async def put_stream(self, put: Put, blocks: AsyncIterator[Buffer]) -> None:
        """Send an object block by block (each at most 1 MiB of stored bytes).

        If `put.resumable`, what the node has of it already is not sent again. An error of `blocks` abandons the object
        and is raised.
        """
        skip = await self._announce(put)
        if skip is None:
            await self._send(self._connection.data_header(0, 0, ABANDONED))
            return
        offset = 0
        try:
            async for block in blocks:
                view = memoryview(block).cast("B")
                start = min(max(0, skip - offset), len(view))
                await self._send_block(view[start:], offset + start)
                offset += len(view)
        except FascicleError as error:
            if not isinstance(error, UnreachableError):
                await self._send(self._connection.data_header(max(skip, offset), 0, ABANDONED))
            raise
        await self._send(self._connection.data_header(max(skip, offset), 0, LAST))

    async def _send_block(self, view: memoryview, offset: int) -> None:
        while view:
            length = await self._wait_share(len(view))
            await self._send_share(self._connection.data_header(offset, length), view[:length])
            view, offset = view[length:], offset + length

    async def _wait_share(self, wanted_bytes: int) -> int:
        """Wait for credit and for the flow's turn; returns how much of `wanted_bytes` goes next."""
        await self.wait_credit(wanted_bytes)
        size_bytes = min(wanted_bytes, self._connection.credit_bytes, self._share_bytes)
        return size_bytes if self._turn is None else await self._turn(size_bytes)

    async def _send_share(self, *parts: Buffer) -> None:
        """Send one share, and fit the next to how long it took; the kernel holds no more unsent than one."""
        started_s, sent_bytes = trio.current_time(), self.sent_bytes
        await self._send(*parts)
        if self._turn is None:
            return
        took_s, share_bytes = trio.current_time() - started_s, self._share_bytes
        self._share_bytes = next_share_bytes(share_bytes, self.sent_bytes - sent_bytes, took_s)
        if self._share_bytes != share_bytes:
            self._stream.limit_unsent(min(self._share_bytes, UNSENT_BYTES_MAX))

    def tcp_info(self) -> TcpInfo | None:
        """Return what the kernel knows of the connection, None where it does not say."""
        return self._stream.tcp_info()

    async def _announce(self, put: Put) -> int | None:
        """Send PUT and return how much the node has; None when it answered for a resumable object at once."""
        self._awaited, self._resume_bytes, self._answered = put.object_id if put.resumable else b"", None, False
        await self._send(self._connection.put(put))
        if not put.resumable:
            return 0
        while self._resume_bytes is None and not self._answered:
            self._check_open()
            await self._resume_came.wait()
        self._awaited = b""
        return self._resume_bytes

    async def bye(self) -> None:
        """Say that nothing more comes; `frames()` ends when the node has answered everything."""
        self._said_bye = True
        await self._send(self._connection.bye())

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Yield what the node says, besides credit, until it closes.

        Raises:
            UnreachableError: the connection broke.
            ProtocolError: the node broke the protocol.
            FascicleError: the node refused the flow.
        """
        try:
            while True:
                for frame in self._connection.frames():
                    if self._keep(frame):
                        yield frame
                if not await self._receive():
                    return
        finally:
            self._connection.state = State.CLOSED
            self._wake()

    def _keep(self, frame: Frame) -> bool:
        """Take in what concerns the flow itself; tell whether the owner is to see the frame."""
        match frame:
            case Pong() if frame.token == self._token and self._asked_s is not None:
                self._rtt_s, self._asked_s = trio.current_time() - self._asked_s, None
                return False
            case Credit():
                self._more_credit.set()
                self._more_credit = trio.Event()
                return False
            case Resume():
                if frame.object_id != self._awaited:
                    raise ProtocolError(f"{self.welcome.node_id} resumes an object that was not put")
                self._resume_bytes = frame.offset_bytes
                self._wake()
                return False
            case Refused(object_id=b""):
                raise errors.from_code(frame.code, f"{self.welcome.node_id}: {frame.text}")
        return True

    def answered(self, object_ids: Sequence[bytes]) -> None:
        """Note that the node has answered for these objects, so that nobody waits for their RESUME."""
        if self._awaited in object_ids:
            self._answered = True
            self._wake()

    async def _receive(self) -> bool:
        reader = self._connection.reader
        count = await self._stream.receive_into(reader.buffer(), reader.wanted_bytes)
        self.received_bytes += count
        if count:
            reader.received(count)
            return True
        try:
            self._connection.end_of_stream()
        except ProtocolError as error:
            raise UnreachableError(f"{self.welcome.node_id} went away in the middle of a frame") from error
        return False

    async def _send(self, *parts: Buffer) -> None:
        if self._pinged is not None:
            await self._pinged.wait()
        self._check_open()
        self._sending = True
        try:
            await self._stream.send(*parts)
        finally:
            self._sending = False
        self.sent_bytes += sum(memoryview(part).nbytes for part in parts)

    def _check_open(self) -> None:
        if self._connection.state is State.CLOSED:
            raise UnreachableError(f"{self.welcome.node_id} closed the flow")

    def _wake(self) -> None:
        for event in (self._more_credit, self._resume_came):
            event.set()
        self._more_credit, self._resume_came = trio.Event(), trio.Event()


@contextlib.asynccontextmanager
async def open_flow(
    address: Address,
    context: ssl.SSLContext | None,
    ticket: bytes,
    *,
    node_id: str,
    congestion: str | None = None,
    turn: Turn | None = None,
) -> AsyncIterator[Flow]:
    """Connect to the node `node_id` and greet it; `context` None for a plain data plane.

    `turn` is awaited before each share of an object, which is then small enough that what waits for it waits little.

    Raises:
        UnreachableError: no answer, or another party's, which gets no ticket where certificates tell who it is.
        FascicleError: the node refused (ticket, certificate, too many flows).
    """
    try:
        with trio.fail_after(GREETING_S):
            stream = await connect(address, context, congestion=congestion)
            try:
                _require_certificate(stream, node_id, address)
                flow = await _greet(stream, ticket, address, turn)
                if flow.welcome.node_id != node_id:
                    raise UnreachableError(f"{address} is {flow.welcome.node_id}, not {node_id}")  # noqa: TRY301  # closes
            except BaseException:
                await stream.aclose()
                raise
    except trio.TooSlowError as error:
        raise UnreachableError(f"{address} did not answer within {GREETING_S:.0f} s") from error
    try:
        yield flow
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()


def _require_certificate(stream: Stream, node_id: str, address: Address) -> None:
    """Refuse a party of this cluster that is reached where a node should be: it may have a node's host name."""
    peer = stream.peer
    if peer is not None and (peer.role, peer.name) != ("node", node_id):
        raise UnreachableError(
            f"{address} shows the certificate of {peer.name[:64]} ({peer.role[:32]}), not of node {node_id}"
        )


async def _greet(stream: Stream, ticket: bytes, address: Address, turn: Turn | None) -> Flow:
    connection = ClientConnection()
    await stream.send(connection.hello(ticket))
    while True:
        count = await stream.receive_into(connection.reader.buffer())
        if not count:
            raise UnreachableError(f"{address} closed the connection at the greeting")
        connection.reader.received(count)
        # Not a loop over all frames: what follows WELCOME is for `Flow.frames`.
        frame = next(connection.frames(), None)
        match frame:
            case Welcome():
                return Flow(stream, connection, frame, turn)
            case Refused():
                raise errors.from_code(frame.code, f"{address}: {frame.text}")
