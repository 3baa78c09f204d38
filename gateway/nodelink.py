"""The gateway's own flows to nodes: RESERVE before an agent is sent there, CHECK to learn what a node has already.

One flow a node, opened at its first heartbeat and kept, since a workstation waits while flows to many nodes are opened;
one request at a time on it. A flow that broke is opened anew once within a request, because a node that restarted is no
reason to leave it out. Each request has a deadline; what is not answered in time is unknown, never a fact. Who shows
another party's certificate, or one that was revoked, gets no ticket. Refuses to do: payload, choosing nodes, believing
unsigned answers.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from transfer.errors import FascicleError, ProtocolError, UnauthorisedError, UnreachableError, from_code
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger
from transfer.protocol.connection import ClientConnection, State
from transfer.protocol.frames import Frame, encode_control
from transfer.protocol.messages import (
    Check,
    Checked,
    Message,
    Ping,
    Pong,
    Refused,
    Reserve,
    Reserved,
    Stored,
    Welcome,
)
from transfer.tls import Peer, peer_from_der

M = TypeVar("M", bound=Message)
# 256 receipts with identities of the largest size stay below the limit of a control frame (1 MiB).
CHECK_IDS_MAX: Final = 256
READ_BYTES: Final = 64 << 10
KEEP_S: Final = 60.0  # without a request; a node ends a flow that is silent for five minutes
MakeTicket = Callable[[str], bytes]
IsRevoked = Callable[[Peer], bool]


class _Flow:
    """One open flow."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = ClientConnection()
        self._reader = reader
        self._writer = writer

    def peer(self) -> Peer | None:
        """Return whom the node's certificate names; None on a plain data plane.

        Raises:
            UnauthorisedError: it names nobody.
        """
        secured = self._writer.get_extra_info("ssl_object")
        return None if secured is None else peer_from_der(secured.getpeercert(True))

    async def ask(self, frame: bytes, kind: type[M]) -> M:
        """Send `frame`; return the next message of `kind`.

        Raises:
            FascicleError: the node refused, broke the protocol, or went away.
        """
        try:
            self._writer.write(frame)
            await self._writer.drain()
            while True:
                for answer in self.connection.frames():
                    if isinstance(answer, kind):
                        return answer
                    _judge(answer)
                await self._read()
        except OSError as error:
            raise UnreachableError("the node closed the flow") from error

    async def _read(self) -> None:
        room = self.connection.reader.buffer()
        data = await self._reader.read(min(len(room), READ_BYTES))
        if not data:
            raise UnreachableError("the node closed the flow")
        room[: len(data)] = data
        self.connection.reader.received(len(data))

    def close(self) -> None:
        self._writer.transport.abort()


class NodeLink:
    """The flow to one node; `request` may be called by many tasks."""

    def __init__(
        self, node_id: str, make_ticket: MakeTicket, tls: ssl.SSLContext | None, is_revoked: IsRevoked
    ) -> None:
        self._node_id = node_id
        self._make_ticket = make_ticket
        self._tls = tls
        self._is_revoked = is_revoked
        self._flow: _Flow | None = None
        self._address: tuple[str, int] | None = None
        self._used_s = 0.0
        self._lock = asyncio.Lock()

    def is_fresh(self, address: tuple[str, int], now_s: float) -> bool:
        """Tell whether a flow to `address` is open, or being opened, and was used of late."""
        if self._lock.locked():
            return True
        is_open = self._flow is not None and self._flow.connection.state is State.OPEN
        return is_open and address == self._address and now_s - self._used_s < KEEP_S

    async def request(self, address: tuple[str, int], message: Message, kind: type[M]) -> M:
        """Ask the node that listens at `address`.

        Raises:
            FascicleError: refused, unreachable, or not the node that it should be.
        """
        async with self._lock:
            if address != self._address:
                self.close()
            if self._flow is not None and self._flow.connection.state is State.OPEN:
                try:
                    return await self._ask(self._flow, message, kind)
                except UnreachableError:
                    pass  # the kept flow was stale; a new one decides
            flow = await self._open(address)
            return await self._ask(flow, message, kind)

    def close(self) -> None:
        """Drop the flow."""
        if self._flow is not None:
            self._flow.close()
        self._flow = None

    async def _ask(self, flow: _Flow, message: Message, kind: type[M]) -> M:
        done = False
        try:
            answer = await flow.ask(encode_control(message), kind)  # type: ignore[arg-type]  # a union of messages
            done = True
            self._used_s = asyncio.get_running_loop().time()
            return answer
        finally:
            if not done:  # refused, broken or cancelled: a late answer must not meet the next question
                self.close()

    async def _open(self, address: tuple[str, int]) -> _Flow:
        self.close()
        host, port = address
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=self._tls)
        except OSError as error:
            raise UnreachableError(f"node {self._node_id} at {host}:{port} does not answer: {error}") from error
        flow, self._address = _Flow(reader, writer), address
        self._flow = flow
        welcome = await self._greet(flow)
        if welcome.node_id != self._node_id:
            self.close()
            raise ProtocolError(f"{host}:{port} is node {welcome.node_id}, not {self._node_id}")
        return flow

    async def _greet(self, flow: _Flow) -> Welcome:
        done = False
        try:
            self._require_certificate(flow.peer())
            welcome = await flow.ask(flow.connection.hello(self._make_ticket(self._node_id)), Welcome)
            done = True
            return welcome
        finally:
            if not done:
                self.close()

    def _require_certificate(self, peer: Peer | None) -> None:
        """Refuse a party of this cluster that is reached where the node should be: it may have the node's host name."""
        if peer is None:
            return
        if (peer.role, peer.name) != ("node", self._node_id):
            shown = f"the certificate of {peer.name[:64]} ({peer.role[:32]})"
            raise UnreachableError(f"where node {self._node_id} should be, {shown} is shown")
        if self._is_revoked(peer):
            raise UnauthorisedError(f"the certificate that {self._node_id} shows was revoked; enrol it anew")


class NodeLinks:
    """The flows to all nodes."""

    def __init__(
        self,
        make_ticket: MakeTicket,
        tls: ssl.SSLContext | None,
        is_revoked: IsRevoked,
        *,
        reserve_timeout_s: float,
        check_timeout_s: float,
    ) -> None:
        self._make_ticket = make_ticket
        self._tls = tls
        self._is_revoked = is_revoked
        self._reserve_timeout_s = reserve_timeout_s
        self._check_timeout_s = check_timeout_s
        self._links: dict[str, NodeLink] = {}
        self._opening: set[asyncio.Task[Pong | None]] = set()

    def keep_open(self, node: Heartbeat) -> None:
        """Open the flow to a node that lives, or use it, unless it was used of late; returns at once."""
        loop = asyncio.get_running_loop()
        if not self._link(node.node_id).is_fresh((node.host, node.port), loop.time()):
            task = loop.create_task(self._within(self._reserve_timeout_s, node, Ping(0), Pong))
            self._opening.add(task)  # the loop itself keeps no hold of its tasks
            task.add_done_callback(self._opening.discard)

    async def reserve(self, nodes: Sequence[Heartbeat], transfer_id: str, size_bytes: int) -> list[Heartbeat]:
        """Ask all nodes at once for room; return those that confirmed in time, in the order given."""
        answers = await asyncio.gather(*(self._reserve(node, Reserve(transfer_id, size_bytes)) for node in nodes))
        return [node for node, confirmed in zip(nodes, answers, strict=True) if confirmed]

    async def check(self, nodes: Sequence[Heartbeat], object_ids: Sequence[bytes]) -> list[Stored]:
        """Ask all nodes at once which of the objects they hold; return their signed receipts, not yet verified."""
        answers = await asyncio.gather(*(self._check(node, object_ids) for node in nodes))
        return [stored for answer in answers for stored in answer]

    def close(self) -> None:
        """Drop all flows."""
        for task in self._opening:
            task.cancel()
        for link in self._links.values():
            link.close()

    async def _reserve(self, node: Heartbeat, message: Reserve) -> bool:
        answer = await self._within(self._reserve_timeout_s, node, message, Reserved)
        return answer is not None and answer.transfer_id == message.transfer_id

    async def _check(self, node: Heartbeat, object_ids: Sequence[bytes]) -> list[Stored]:
        found: list[Stored] = []
        for start in range(0, len(object_ids), CHECK_IDS_MAX):
            message = Check(list(object_ids[start : start + CHECK_IDS_MAX]), deep=False)
            answer = await self._within(self._check_timeout_s, node, message, Checked)
            if answer is None:
                break
            found.append(answer.sound)
        return found

    async def _within(self, timeout_s: float, node: Heartbeat, message: Message, kind: type[M]) -> M | None:
        """Return the answer, or None when there is none that counts; the log says why."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._link(node.node_id).request((node.host, node.port), message, kind)
        except TimeoutError:
            problem = "timeout"
        except FascicleError as error:
            problem = error.code
        get_logger().warning("node_left_out", node_id=node.node_id, asked=type(message).__name__, problem=problem)
        return None

    def _link(self, node_id: str) -> NodeLink:
        if node_id not in self._links:
            self._links[node_id] = NodeLink(node_id, self._make_ticket, self._tls, self._is_revoked)
        return self._links[node_id]


def _judge(answer: Frame) -> None:
    """Raise what the node refuses; frames that are no answer (credit, pong) pass."""
    if isinstance(answer, Refused):
        raise from_code(answer.code, answer.text)
