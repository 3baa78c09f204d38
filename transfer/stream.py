"""Byte streams under the frames: TCP, plain or TLS 1.3, read into memory that the reader owns.

Two kinds behind one small interface. Foreign errors become `UnreachableError` here and nowhere else. Refuses to do:
framing, retries, time-outs (deadlines belong to the caller).
"""

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final, Protocol

import trio
from typing_extensions import Buffer

from transfer.addresses import Address
from transfer.control import sockets, tcp_info
from transfer.control.tcp_info import TcpInfo
from transfer.errors import SettingsError, UnreachableError
from transfer.tls import Peer, peer_from_der

JOIN_BYTES_MAX: Final = 64 << 10  # up to here one copy is cheaper than a second record or system call
TLS_READ_BYTES: Final = 256 << 10
KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # gone for a minute is gone
TLS_RECORD_BYTES: Final = 17 << 10  # with what is around it
TLS_LOW_WATER_BYTES_MAX: Final = 64 << 10  # what trio's TLS reads at once
LOW_WATER_BYTES_MAX: Final = 1 << 20  # on a fast link a reader is else woken for every 64 KiB (loopback), or less


class Stream(Protocol):
    """A connected stream; `peer` is None when plain."""

    peer: Peer | None

    async def receive_into(self, buffer: memoryview, wanted_bytes: int = 1) -> int:
        """Read some bytes into `buffer` and return how many, 0 at the end.

        `wanted_bytes` are sure to come: it may be waited for many of them, which saves work when there are a lot.

        Raises:
            UnreachableError: the connection broke.
        """

    async def send(self, *parts: Buffer) -> None:
        """Send all parts in order; one task at a time.

        Raises:
            UnreachableError: the connection broke.
        """

    def limit_unsent(self, size_bytes: int) -> None:
        """Let the kernel hold no more than about `size_bytes` unsent."""

    def tcp_info(self) -> TcpInfo | None:
        """Return what the kernel knows of the connection; None where it does not say, and after the end."""

    async def aclose(self) -> None:
        """Close at once, never raising for a broken connection."""


class _LowWater:
    """How much must have come before a reader is woken (SO_RCVLOWAT)."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket
        self._bytes = 1

    def set(self, wanted_bytes: int) -> int:
        """Set it to `wanted_bytes`, at least 1, and return what it is."""
        wanted_bytes = max(wanted_bytes, 1)
        if wanted_bytes != self._bytes:
            self._socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVLOWAT, wanted_bytes)
            self._bytes = wanted_bytes
        return self._bytes


class PlainStream:
    """TCP without TLS."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self.peer: Peer | None = None
        self._socket = socket
        self._low_water = _LowWater(socket)
        socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)

    async def receive_into(self, buffer: memoryview, wanted_bytes: int = 1) -> int:
        """See `Stream`."""
        with _broken_is_unreachable:
            if self._low_water.set(min(wanted_bytes, LOW_WATER_BYTES_MAX)) > 1:
                await trio.lowlevel.wait_readable(self._socket.fileno())
            return await self._socket.recv_into(buffer)

    async def send(self, *parts: Buffer) -> None:
        """See `Stream`; header and payload leave in one system call, neither copied."""
        views = [memoryview(part).cast("B") for part in parts]
        with _broken_is_unreachable:
            while views:
                sent = await self._socket.sendmsg(views)
                while views and sent >= len(views[0]):
                    sent -= len(views.pop(0))
                if sent:
                    views[0] = views[0][sent:]

    def limit_unsent(self, size_bytes: int) -> None:
        """See `Stream`."""
        sockets.limit_unsent(self._socket, size_bytes)

    def tcp_info(self) -> TcpInfo | None:
        """See `Stream`."""
        return tcp_info.read(self._socket)

    async def aclose(self) -> None:
        """See `Stream`."""
        self._socket.close()
        await trio.lowlevel.checkpoint()


class TlsStream:
    """TCP under TLS 1.3; the handshake is done before the object exists (`secure`)."""

    def __init__(self, stream: "trio.SSLStream[trio.SocketStream]") -> None:
        self.peer: Peer | None = peer_from_der(stream.getpeercert(binary_form=True))
        self._stream = stream
        self._low_water = _LowWater(stream.transport_stream.socket)

    async def receive_into(self, buffer: memoryview, wanted_bytes: int = 1) -> int:
        """See `Stream`."""
        with _broken_is_unreachable:
            # What is wanted is on its way, but for one record that may have come in part; waking for each is dear.
            self._low_water.set(min(wanted_bytes - TLS_RECORD_BYTES, TLS_LOW_WATER_BYTES_MAX))
            received = await self._stream.receive_some(min(len(buffer), TLS_READ_BYTES))
        buffer[: len(received)] = received
        return len(received)

    async def send(self, *parts: Buffer) -> None:
        """See `Stream`; small parts are joined so that they share a record."""
        with _broken_is_unreachable:
            if sum(memoryview(part).nbytes for part in parts) <= JOIN_BYTES_MAX:
                await self._stream.send_all(b"".join(parts))
                return
            for part in parts:
                await self._stream.send_all(memoryview(part).cast("B"))

    def limit_unsent(self, size_bytes: int) -> None:
        """See `Stream`."""
        sockets.limit_unsent(self._stream.transport_stream.socket, size_bytes)

    def tcp_info(self) -> TcpInfo | None:
        """See `Stream`."""
        return tcp_info.read(self._stream.transport_stream.socket)

    async def aclose(self) -> None:
        """See `Stream`."""
        # The conversation has its own end (BYE), so closing the transport is no truncation; trio's own way waits.
        await trio.aclose_forcefully(self._stream)


async def secure(
    socket: trio.socket.SocketType, context: ssl.SSLContext | None, *, server_side: bool, host: str | None = None
) -> Stream:
    """Make a stream of a connected socket: plain without `context`, else after a TLS handshake.

    Raises:
        UnreachableError: the handshake failed or the connection broke.
        UnauthorisedError: the peer showed no usable certificate.
    """
    _keep_alive(socket)
    if context is None:
        return PlainStream(socket)
    stream = trio.SSLStream(trio.SocketStream(socket), context, server_hostname=host, server_side=server_side)
    with _broken_is_unreachable:
        await stream.do_handshake()
    return TlsStream(stream)


def _keep_alive(socket: trio.socket.SocketType) -> None:
    """Let the kernel notice a peer whose machine is gone while nothing is being sent to it."""
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE.items():
        if hasattr(trio.socket, option):
            socket.setsockopt(trio.socket.IPPROTO_TCP, getattr(trio.socket, option), value)


async def connect(address: Address, context: ssl.SSLContext | None, *, congestion: str | None = None) -> Stream:
    """Connect to a node; `context` None for a plain data plane.

    `congestion`: None for the system's default, `auto` for BBR where it is allowed, or a name.

    Raises:
        UnreachableError: refused, no route, no such host, or a failed handshake.
        SettingsError: a congestion control that the kernel does not have.
    """
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        raise UnreachableError(f"cannot connect to {address}: {error.strerror or error}") from error
    try:
        sockets.prepare(stream.socket, congestion)
        return await secure(stream.socket, context, server_side=False, host=address.host)
    except BaseException:
        stream.socket.close()
        raise


async def listen(address: Address) -> trio.SocketListener:
    """Bind and listen.

    Raises:
        SettingsError: the address is in use or not this machine's.
    """
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=1024)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {address}: {error.strerror or error}; choose another address or stop its owner"
        ) from error
    first, *others = listeners
    for other in others:
        await other.aclose()
    return first


def port_of(listener: trio.SocketListener) -> int:
    """Return the port that a listener got."""
    port: int = listener.socket.getsockname()[1]
    return port


class _BrokenIsUnreachable:
    """Turns what sockets raise into our error; a class, because this stands around every read and write."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is not None and issubclass(kind, BROKEN):
            raise UnreachableError(f"the connection broke: {_reason(error)}") from error


BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError)
_broken_is_unreachable: Final = _BrokenIsUnreachable()


def _reason(error: BaseException | None) -> str:
    cause = (error and error.__cause__) or error
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or cause}"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


@contextlib.asynccontextmanager
async def closing(stream: Stream) -> AsyncIterator[Stream]:
    """Close the stream on the way out."""
    try:
        yield stream
    finally:
        await stream.aclose()
