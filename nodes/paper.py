"""The paper's own protocol (S2): takes `[Filename | Bytes]` terms from stock Erlang clients and stores them durably.

One connection carries one message, as with the paper's server: read, store, answer the term Filename, close. The
bytes are streamed to the store, never collected. The answer is sent after the object is durable and announced. The
protocol has no word for a refusal: a message that is refused closes the connection without an answer, and the log
says why. When `connections_max` are open, no more are accepted. Refuses to do: taking a name for a path (it is data),
TLS and tickets (the protocol has none, so the listener is off unless configured).
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, Never, Protocol

import trio

from nodes.incoming import Incoming
from nodes.objectfile import Record
from nodes.store import Store
from transfer.errors import FascicleError, ProtocolError, UnreachableError
from transfer.log import get_logger
from transfer.protocol.etf import LENGTH, Head, encode_answer, parse_head

READ_BYTES: Final = 256 << 10
SILENCE_S: Final = 60.0
FRAME_BYTES_MAX: Final = 1 << 30
CONNECTIONS_MAX: Final = 64
NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
ACCEPT_AGAIN_S: Final = 0.1
log = get_logger()

Announce = Callable[[Record, str], Awaitable[None]]


class StoreObject(Protocol):
    """The node's group commit: owns the upload from here on, and returns when it is durable."""

    async def __call__(self, incoming: Incoming) -> Record:
        """Commit one upload; raises its FascicleError."""


class Paper:
    """The listener's settings and the node's parts that it works with.

    `announce` is awaited with each durable object's record and name, before the answer: what it has taken, people can
    find. Its error closes the connection without an answer; the object stays.
    """

    def __init__(
        self,
        store: Store,
        store_object: StoreObject,
        announce: Announce,
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        silence_s: float = SILENCE_S,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.store = store
        self.store_object = store_object
        self.announce = announce
        self.frame_bytes_max = frame_bytes_max
        self.silence_s = silence_s
        self.connections_max = connections_max


async def serve_paper(
    paper: Paper, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> Never:
    """Listen on `host:port` for ever; reports the port (0: any that is free) when it listens.

    Raises:
        OSError: it cannot listen there.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    task_status.started(listeners[0].socket.getsockname()[1])
    places = trio.Semaphore(paper.connections_max)
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_accept, paper, listener, places, nursery)
    raise AssertionError("acceptors do not end")


async def _accept(paper: Paper, listener: trio.SocketListener, places: trio.Semaphore, nursery: trio.Nursery) -> None:
    async with listener:
        while True:
            await places.acquire()
            nursery.start_soon(_serve_one, paper, await _accept_one(listener), places)


async def _accept_one(listener: trio.SocketListener) -> trio.SocketStream:
    """Wait for a connection; while the system has no descriptors left, for these too."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS:
                raise
            log.warning("paper_accept_delayed", reason=error.strerror)
            await trio.sleep(ACCEPT_AGAIN_S)


async def _serve_one(paper: Paper, stream: trio.SocketStream, places: trio.Semaphore) -> None:
    """Serve one connection: the supervised unit, whose failure is its own."""
    try:
        async with stream:
            record = await _receive(paper, _Inlet(stream, paper.silence_s))
            log.info("paper_object_stored", object_id=record.object_id, size_bytes=record.size_bytes)
    except FascicleError as error:
        log.warning("paper_object_refused", code=error.code, message=error.message)
    except Exception:
        log.exception("paper_connection_failed")
    finally:
        places.release()


class _Inlet:
    """A connection's bytes, and at most `silence_s` of waiting for the next."""

    def __init__(self, stream: trio.SocketStream, silence_s: float) -> None:
        self.stream = stream
        self.silence_s = silence_s
        self.held = b""

    async def more(self, at_most: int = READ_BYTES) -> bytes:
        """Return what comes next.

        Raises:
            UnreachableError: nothing does.
        """
        try:
            with trio.fail_after(self.silence_s):
                data = await self.stream.receive_some(min(at_most, READ_BYTES))
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            raise UnreachableError("the client went away in the middle of a message") from error
        if not data:
            raise UnreachableError("the client ended the connection in the middle of a message")
        return bytes(data)

    async def answer(self, frame: bytes) -> None:
        """Send the answer.

        Raises:
            UnreachableError: the client does not take it.
        """
        try:
            with trio.fail_after(self.silence_s):
                await self.stream.send_all(frame)
                await self.stream.send_eof()
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            raise UnreachableError("the client did not wait for the answer") from error


async def _receive(paper: Paper, inlet: _Inlet) -> Record:
    head = await _receive_head(paper, inlet)
    incoming = paper.store.begin_unnamed(head.size_bytes)
    try:
        await _receive_bytes(inlet, head, incoming)
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(incoming.abandon)
        raise
    record = await paper.store_object(incoming)
    await paper.announce(record, head.name)
    await inlet.answer(encode_answer(head))
    return record


async def _receive_head(paper: Paper, inlet: _Inlet) -> Head:
    data = b""
    while len(data) < LENGTH.size:
        data += await inlet.more()
    (frame_bytes,) = LENGTH.unpack_from(data)
    if frame_bytes > paper.frame_bytes_max:
        raise ProtocolError(f"a frame of {frame_bytes} bytes; this node takes {paper.frame_bytes_max}")
    data = data[LENGTH.size :]
    while (head := parse_head(data, frame_bytes)) is None:
        data += await inlet.more()
    if len(data) > frame_bytes:
        raise ProtocolError("more than one message on a connection")
    inlet.held = data[head.offset_bytes :]
    return head


async def _receive_bytes(inlet: _Inlet, head: Head, incoming: Incoming) -> None:
    missing = head.size_bytes
    data = inlet.held
    while missing:
        data = data or await inlet.more(missing)
        if incoming.fits(len(data)):
            incoming.write(data)
        else:
            await trio.to_thread.run_sync(incoming.write, data)
        missing -= len(data)
        data = b""
