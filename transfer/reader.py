"""The reader: fetches objects from the nodes that hold them, and proves each one's bytes before it is called there.

One flow a node, many requests under way on it; an object whose node fails, refuses or gives wrong bytes is asked of its
next replica. Bytes go to a `Sink` as originals. Refuses to do: names, files, retries beyond the replicas.
"""

import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio
from blake3 import blake3
from typing_extensions import Buffer

from transfer.addresses import Address
from transfer.api import Go, Node, StoredObject
from transfer.comeback import spread_s
from transfer.encodings import Decoder, OpenDecoder, open_decoder_here
from transfer.errors import (
    BusyError,
    CorruptError,
    FascicleError,
    ProtocolError,
    SettingsError,
    UnreachableError,
    from_code,
)
from transfer.flow import Flow, open_flow
from transfer.groups import first_error_only
from transfer.protocol.frames import LAST, Data
from transfer.protocol.messages import Get, Object, Refused
from transfer.silence import serve_watch

UNDER_WAY_MAX: Final = 32
UNDER_WAY_BYTES_MAX: Final = 8 << 20
BUSY_MAX: Final = 4  # times that a node may say when it has a place; the ticket of a reader does not last for ever
ATTEMPTS_A_NODE: Final = 2  # a flow that broke says little about the node


class Sink(Protocol):
    """Takes one object's original bytes; all calls block and run in threads."""

    def write(self, block: Buffer) -> None:
        """Take the next bytes."""

    def finish(self) -> None:
        """The object is whole and proved: keep it."""

    def abandon(self) -> None:
        """It is not: forget it."""


OpenSink = Callable[[StoredObject], Sink]
Renew = Callable[[], Awaitable[Go]]
OnDone = Callable[[StoredObject, FascicleError | None], None]


@dataclass(slots=True, eq=False)
class _Wanted:
    """One object to fetch: which nodes may still be asked, and why others failed."""

    stored: StoredObject
    nodes: deque[str]
    error: FascicleError = field(default_factory=lambda: UnreachableError("no node that holds it is reachable"))

    def note(self, error: FascicleError) -> None:
        """Keep why a node failed, if it tells more than what is known: damage, absence, silence, in this order."""
        if _tells(error) >= _tells(self.error):
            self.error = error


def _tells(error: FascicleError) -> int:
    return 2 if isinstance(error, CorruptError) else int(not isinstance(error, UnreachableError))


async def fetch(
    objects: Sequence[StoredObject],
    go: Go,
    *,
    context: ssl.SSLContext,
    open_sink: OpenSink,
    on_done: OnDone,
    open_decoder: OpenDecoder = open_decoder_here,
    renew: Renew | None = None,
) -> None:
    """Fetch `objects` with the read ticket of `go`; `on_done` is told of each, once, with its error if it
    could not be had. `open_decoder` gives their decoders; `renew` a ticket for flows that are opened late, since over a
    slow link the objects take longer than a ticket lasts.

    Raises:
        FascicleError: a sink failed (such as a full disk here).
    """
    tickets = _Tickets(go, renew)
    await _Fetch(objects, go, context, open_sink, on_done, open_decoder=open_decoder, tickets=tickets).run()


class _Tickets:
    """The read ticket, renewed where half of its life is over when a flow is opened."""

    def __init__(self, go: Go, renew: Renew | None) -> None:
        self._renew = renew
        self._renewing = trio.Lock()
        self._take(go)

    def _take(self, go: Go) -> None:
        self._ticket = go.ticket
        self._good_until_s = trio.current_time() + go.expires_in_s / 2

    async def ticket(self) -> bytes:
        """Return one to open a flow with.

        Raises:
            FascicleError: the gateway gives none.
        """
        async with self._renewing:
            if self._renew is not None and trio.current_time() > self._good_until_s:
                self._take(await self._renew())
        return self._ticket


class _Fetch:
    def __init__(
        self,
        objects: Sequence[StoredObject],
        go: Go,
        context: ssl.SSLContext,
        open_sink: OpenSink,
        on_done: OnDone,
        *,
        open_decoder: OpenDecoder,
        tickets: _Tickets,
    ) -> None:
        self.open_decoder = open_decoder
        self.context, self.open_sink, self.on_done = context, open_sink, on_done
        self._tickets = tickets
        self._nodes = {node.node_id: node for node in go.nodes}
        self._queues: dict[str, deque[_Wanted]] = {node_id: deque() for node_id in self._nodes}
        self._first = [self._wanted(stored) for stored in objects]

    def _wanted(self, stored: StoredObject) -> _Wanted:
        reachable = [node_id for node_id in stored.node_ids if node_id in self._nodes]
        return _Wanted(stored, deque(reachable * ATTEMPTS_A_NODE))

    async def run(self) -> None:
        for wanted in self._first:
            self._begin_with_shortest_queue(wanted)
            self.ask_next(wanted)
        while any(self._queues.values()):
            with first_error_only():
                async with trio.open_nursery() as nursery:
                    for node_id, queue in self._queues.items():
                        if queue:
                            nursery.start_soon(self._drain, self._nodes[node_id], queue)

    def _begin_with_shortest_queue(self, wanted: _Wanted) -> None:
        lengths = [len(self._queues[node_id]) for node_id in wanted.nodes]
        if lengths:
            wanted.nodes.rotate(-lengths.index(min(lengths)))

    def ask_next(self, wanted: _Wanted) -> None:
        """Queue an object at its next node; without one it has failed."""
        if wanted.nodes:
            self._queues[wanted.nodes.popleft()].append(wanted)
        else:
            self.on_done(wanted.stored, wanted.error)

    async def _drain(self, node: Node, queue: deque[_Wanted]) -> None:
        """Work off one node's queue on one flow; when that breaks, what is left goes to the next replicas."""
        for _ in range(BUSY_MAX):
            pause_s = await self._converse(node, queue)
            if not pause_s:
                return
            await trio.sleep(spread_s(pause_s, random.random()))  # noqa: S311 - no secret
        self._pass_on([], queue, BusyError(f"{node.node_id} had no place for a reader {BUSY_MAX} times"))

    async def _converse(self, node: Node, queue: deque[_Wanted]) -> float:
        """Open a flow and read; return how long to wait where the node has no place for it now, else 0.0."""
        conversation = _Reading(self, queue)
        try:
            address = Address(node.host, node.port)
            with first_error_only():
                context, ticket = self.context if node.tls else None, await self._tickets.ticket()
                async with open_flow(address, context, ticket, node_id=node.node_id) as flow:
                    await conversation.run(flow)
        except FascicleError as error:
            if conversation.sink_failed:
                raise
            if error.retry_after_s and not conversation.under_way:
                return error.retry_after_s
            self._pass_on(conversation.under_way, queue, error)
        return 0.0

    def _pass_on(self, under_way: Iterable[_Wanted], queue: deque[_Wanted], error: FascicleError) -> None:
        left = [*under_way, *queue]
        queue.clear()  # before they are asked again: this node may be the next as well
        for wanted in left:
            wanted.note(error)
            self.ask_next(wanted)


class _Reading:
    """The requests of one flow, answered in the order in which they were asked."""

    def __init__(self, fetch: _Fetch, queue: deque[_Wanted]) -> None:
        self.under_way: deque[_Wanted] = deque()
        self.sink_failed = False
        self._fetch, self._queue = fetch, queue
        self._under_way_bytes = 0
        self._taking = False  # a frame, which may wait for this end's disk
        self._answered = trio.Event()
        self._body: _Body | None = None
        self._found_wrong = b""  # the object whose rest comes still, to its last byte or the node's refusal

    async def run(self, flow: Flow) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, flow)
            nursery.start_soon(serve_watch, flow, lambda: bool(self.under_way) and not self._taking)
            try:
                async for frame in flow.frames():
                    self._taking = True
                    await self._take(frame)
                    self._taking = False
            finally:
                await self._abandon()
            nursery.cancel_scope.cancel()  # nothing more is answered, so nothing more may be asked
        if self.under_way:  # what was queued after BYE is asked on a flow of its own
            raise UnreachableError(f"{flow.welcome.node_id} closed the flow")

    async def _ask(self, flow: Flow) -> None:
        while self._queue:
            wanted = self._queue.popleft()
            self.under_way.append(wanted)
            self._under_way_bytes += wanted.stored.stored_bytes
            await flow.ask(Get(bytes.fromhex(wanted.stored.object_id)))
            while len(self.under_way) >= UNDER_WAY_MAX or self._under_way_bytes > UNDER_WAY_BYTES_MAX:
                await self._answered.wait()
                if self._under_way_bytes <= wanted.stored.stored_bytes:
                    break
        await flow.bye()

    async def _take(self, frame: object) -> None:
        match frame:
            case Object():
                await self._begin(frame)
            case Data():
                await self._take_data(frame)
            case Refused():
                if self._found_wrong and frame.object_id == self._found_wrong:
                    self._found_wrong = b""  # the node says no more than was found here
                else:
                    await self._fail(from_code(frame.code, frame.text))

    async def _begin(self, announced: Object) -> None:
        if not self.under_way or announced.object_id.hex() != self.under_way[0].stored.object_id:
            raise ProtocolError("the node answers with an object that was not asked for")
        stored = self.under_way[0].stored
        if announced.size_bytes != stored.size_bytes:
            raise ProtocolError("the node's object has another size than the catalogue says")
        try:
            decoder = self._fetch.open_decoder(announced.encoding, announced.size_bytes, stored.object_id)
        except SettingsError as error:  # an encoding of a newer release
            await self._give_up(error)
            return
        with self._sink_errors():
            sink = await trio.to_thread.run_sync(self._fetch.open_sink, stored)
        self._body = _Body(stored.object_id, decoder, sink)

    async def _take_data(self, data: Data) -> None:
        last = bool(data.flags & LAST)
        if self._body is None:
            if last:
                self._found_wrong = b""
            return
        try:
            blocks = await trio.to_thread.run_sync(self._body.decode, data)
        except (CorruptError, BusyError) as error:
            if last:
                await self._fail(error)
            else:
                await self._give_up(error)
            return
        with self._sink_errors():
            await trio.to_thread.run_sync(self._body.keep, blocks, last)
        if last:
            self._body = None
            self._fetch.on_done(self._pop().stored, None)

    async def _give_up(self, error: FascicleError) -> None:
        """Take an object as not given whose rest is still to come."""
        self._found_wrong = bytes.fromhex(self.under_way[0].stored.object_id)
        await self._fail(error)

    async def _fail(self, error: FascicleError) -> None:
        """Take one object as not given: another replica is asked."""
        await self._abandon()
        if not self.under_way:
            raise error
        wanted = self._pop()
        wanted.note(error)
        self._fetch.ask_next(wanted)

    async def _abandon(self) -> None:
        """Let go of the object under way, also when cancelled: its sink holds a file."""
        body, self._body = self._body, None
        if body is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(body.sink.abandon)

    def _pop(self) -> _Wanted:
        wanted = self.under_way.popleft()
        self._under_way_bytes -= wanted.stored.stored_bytes
        self._answered.set()
        self._answered = trio.Event()
        return wanted

    def _sink_errors(self) -> "_SinkErrors":
        return _SinkErrors(self)


class _SinkErrors:
    """Marks errors of this end's disk, which no replica can mend."""

    def __init__(self, reading: _Reading) -> None:
        self._reading = reading

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, FascicleError):
            self._reading.sink_failed = True


class _Body:
    """One object on its way in."""

    def __init__(self, object_id: str, decoder: Decoder, sink: Sink) -> None:
        self.sink = sink
        self._object_id = object_id
        self._decoder = decoder
        self._hasher = blake3()

    def decode(self, data: Data) -> list[Buffer]:
        """Return the original bytes of a frame, hashed; of the last one only if the whole object is right (blocks)."""
        blocks = []
        for block in self._decoder.feed(data.payload):
            self._hasher.update(block)
            blocks.append(block)
        if data.flags & LAST:
            self._decoder.finish()
            if self._hasher.hexdigest() != self._object_id:
                raise CorruptError(f"{self._object_id}: the node gave other bytes")
        return blocks

    def keep(self, blocks: list[Buffer], last: bool) -> None:
        """Hand blocks to the sink (blocks)."""
        for block in blocks:
            self.sink.write(block)
        if last:
            self.sink.finish()
