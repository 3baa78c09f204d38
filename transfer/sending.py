"""One flow of a transfer: takes objects from the common work, sends them, and settles them by the node's receipts.

One task sends, one reads. Whatever ends the flow, what it had under way goes back to the work. Refuses to do: opening
the transfer, retries of the flow itself (`transfer.sender`).
"""

import contextlib
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from transfer import inspection, receipts
from transfer.addresses import Address
from transfer.api import Node, SignedReceipts
from transfer.chooser import Chooser
from transfer.dicom.pixels import Kind
from transfer.encoders import Encoders, choose_for_large
from transfer.encodings import get_encoding
from transfer.errors import (
    CorruptError,
    FascicleError,
    NotSuitableError,
    UnreachableError,
    UnusableFileError,
    from_code,
)
from transfer.fleet import Fleet, Place
from transfer.flow import Flow, Turn, open_flow
from transfer.ledger import Ledger
from transfer.protocol.messages import Ping, Put, Refused, Stored
from transfer.refusals import Fate
from transfer.silence import serve_watch
from transfer.work import Item

LATER_S: Final = 0.5
LONG_S: Final = 2.0  # a large object that takes longer is worth to be gone on with by another sender


PostReceipts = Callable[[SignedReceipts], Awaitable[None]]
RememberPart = Callable[[str, str], Awaitable[None]]


async def converse(
    ledger: Ledger,
    fleet: Fleet,
    place: Place,
    node: Node,
    *,
    chooser: Chooser,
    encoders: Encoders,
    congestion: str | None,
    turn: Turn,
    context: ssl.SSLContext,
    post: PostReceipts,
    remember_part: RememberPart,
) -> None:
    """Open a flow to `node` and keep it busy until everything is settled, or `place` is leaving.

    Receipts go to `post` before they count; `remember_part` is told which node gets a large object that takes long.

    Raises:
        FascicleError: the flow broke or was refused; what was under way has been given back.
    """
    address, go = Address(node.host, node.port), fleet.go
    secured = context if node.tls else None
    async with open_flow(address, secured, go.ticket, node_id=node.node_id, congestion=congestion, turn=turn) as flow:
        place.flow = flow
        conversation = _Conversation(
            ledger,
            fleet,
            place,
            node,
            flow,
            replicas=go.replicas,
            chooser=chooser,
            encoders=encoders,
            post=post,
            remember_part=remember_part,
        )
        try:
            async with trio.open_nursery() as watched:
                watched.start_soon(serve_watch, flow, conversation.waits)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(conversation.read, nursery)
                    await conversation.write()
                watched.cancel_scope.cancel()
        finally:
            place.flow = None
            ledger.counters.wire_bytes += flow.sent_bytes
            conversation.give_back()


class _Conversation:
    def __init__(
        self,
        ledger: Ledger,
        fleet: Fleet,
        place: Place,
        node: Node,
        flow: Flow,
        *,
        replicas: int,
        chooser: Chooser,
        encoders: Encoders,
        post: PostReceipts,
        remember_part: RememberPart,
    ) -> None:
        self._ledger, self._fleet, self._place, self._node, self._flow = ledger, fleet, place, node, flow
        self._replicas, self._chooser, self._encoders = replicas, chooser, encoders
        self._post, self._remember_part = post, remember_part
        self._key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(node.public_key))
        self._under_way: dict[bytes, Item] = {}
        self._answered = trio.Event()  # something that was under way has been answered for
        self._done = False

    def waits(self) -> bool:
        """Tell whether the node owes an answer."""
        return bool(self._under_way)

    async def write(self) -> None:
        """Send until nothing is left to send or the place is leaving, then say so when all is answered."""
        while (item := await self._next()) is not None:
            since_s = trio.current_time()
            await self._send(item)
            self._ledger.counters.wait("link", since_s)
        while self._under_way and not self._ledger.work.settled.is_set():
            await self._answered.wait()
        self._done = True
        await self._flow.bye()

    async def _next(self) -> Item | None:
        """Return the next object when there is credit for it; None when no more goes by this flow."""
        counters = self._ledger.counters
        since_s = trio.current_time()
        await self._flow.wait_credit()
        counters.wait("receiver", since_s)
        since_s = trio.current_time()
        if self._under_way and self._ledger.work.is_exhausted:
            await self._flow.ask(Ping(0))  # the node need not wait for more before it makes durable what it has
        item = await self._ledger.work.take(self._node.node_id, lambda: self._place.leaving, self._fleet.patience_s)
        if item is not None:  # else nothing more comes, which is nobody's fault
            counters.wait("source", since_s)
        return item

    async def read(self, nursery: trio.Nursery) -> None:
        """Settle what the node answers for, until it closes the flow."""
        async with contextlib.aclosing(self._flow.frames()) as frames:
            async for frame in frames:
                match frame:
                    case Stored():
                        await self._take_receipts(frame)
                    case Refused():
                        self._flow.answered([frame.object_id])
                        item, error = self._under_way.get(frame.object_id), from_code(frame.code, frame.text)
                        if item is not None and _may_have_changed(item, error):
                            nursery.start_soon(self._look_again, item, error, nursery)
                        elif item is not None:
                            del self._under_way[frame.object_id]
                            self._take_refusal(item, error, nursery)
                self._answered.set()
                self._answered = trio.Event()
        if not self._done and not self._ledger.work.settled.is_set():
            raise UnreachableError(f"{self._node.node_id} closed the flow")

    def give_back(self) -> None:
        """Return what was not answered to the common work."""
        for item in self._under_way.values():
            self._ledger.work.give_back(item)
        self._under_way.clear()

    async def _send(self, item: Item) -> None:
        self._under_way[bytes.fromhex(item.object_id)] = item
        try:
            if item.size_bytes > inspection.BODY_BYTES_MAX:
                await self._send_large(item)
            else:
                await self._send_small(item)
        except UnusableFileError as error:
            if self._under_way.pop(bytes.fromhex(item.object_id), None) is not None:
                self._ledger.unusable(item, error)
        except NotSuitableError:  # found out in the middle of a large object, which has been abandoned
            item.raw_only = True
            if self._under_way.pop(bytes.fromhex(item.object_id), None) is not None:
                self._ledger.work.give_back(item)

    async def _send_small(self, item: Item) -> None:
        if item.encoded is not None and not item.raw_only:
            name, stored = item.encoded.encoding, item.encoded.stored
        else:
            name, stored = "raw", item.body if item.body is not None else await self._ledger.reload(item)
        await self._flow.put(self._put(item, name), stored)
        self._ledger.release(item)

    async def _send_large(self, item: Item) -> None:
        name = await self._choose_large(item)
        put = self._put(item, name, resumable=True)
        item.home = self._node.node_id
        async with contextlib.aclosing(self._blocks(item, name)) as blocks:
            await self._flow.put_stream(put, blocks)

    async def _blocks(self, item: Item, name: str) -> AsyncGenerator[bytes, None]:
        """Yield a large object's stored bytes; each block that no flow has come to before counts as movement."""
        number, since_s, remembered = 0, trio.current_time(), False
        async with contextlib.aclosing(_encoded_blocks(item, name, self._chooser, self._encoders)) as blocks:
            async for block in blocks:
                yield block
                number += 1
                if not remembered and trio.current_time() - since_s > LONG_S:
                    await self._remember_part(item.object_id, self._node.node_id)
                    remembered = True
                if number > item.furthest_block:
                    item.furthest_block = number
                    self._ledger.moved()

    async def _choose_large(self, item: Item) -> str:
        """Return the encoding of a large object: the same each time, so that what a node has of it is of use."""
        if item.raw_only:
            return "raw"
        if item.chosen is None:
            item.chosen = await trio.to_thread.run_sync(self._choose, item.sources[0].path)
        return item.chosen[1]

    def _choose(self, path: Path) -> tuple[Kind | str, str]:
        return choose_for_large(self._chooser, inspection.head(path))

    def _put(self, item: Item, encoding: str, *, resumable: bool = False) -> Put:
        encodings = self._ledger.counters.encodings
        encodings[encoding] = encodings.get(encoding, 0) + 1
        onward = self._replicas - 1
        return Put(bytes.fromhex(item.object_id), item.size_bytes, encoding, resumable, onward)

    async def _take_receipts(self, stored: Stored) -> None:
        batch = receipts.verify(stored, self._key)
        self._flow.answered([receipt.object_id for receipt in batch.receipts])
        await self._post(SignedReceipts(batch=stored.batch, signature=stored.signature))
        for receipt in batch.receipts:
            if receipt.object_id not in self._under_way:
                continue
            if len(set(receipt.node_ids)) < self._replicas:  # it stays under way, and so goes back with the flow's end
                raise UnreachableError(f"{self._node.node_id} made fewer replicas than were asked for")
            self._ledger.durable(self._under_way.pop(receipt.object_id), self._node.node_id)

    async def _look_again(self, item: Item, error: FascicleError, nursery: trio.Nursery) -> None:
        """Read a large object's file once more before its refusal counts: it may have changed, and kept its length."""
        changed: UnusableFileError | None = None
        check, path = inspection.check_again, item.sources[0].path
        try:
            await trio.to_thread.run_sync(check, path, item.object_id, abandon_on_cancel=True)
        except UnusableFileError as found:
            changed = found
        if not self._let_go(item):
            return
        if changed is None:
            self._take_refusal(item, error, nursery)
        else:
            self._ledger.unusable(item, changed)

    def _take_refusal(self, item: Item, error: FascicleError, nursery: trio.Nursery) -> None:
        form = None if item.raw_only else item.chosen
        fate = self._ledger.refused(item, self._node.node_id, error)
        if fate is Fate.AGAIN and form is not None:
            self._chooser.set_aside(*form)  # perhaps the encoder's doing, not the link's: others shall be spared
        if fate is Fate.LATER:
            item.home = ""  # it may be long until that node notices that its sender is another one now
            nursery.start_soon(self._later, item)
        elif fate is Fate.RENEW:
            raise error  # the flow ends, and the next one opens with a new ticket
        elif fate is Fate.ELSEWHERE:
            self._fleet.leave(self._place)

    async def _later(self, item: Item) -> None:
        """Hold an object back for a while; it stays this flow's, so that it is not lost with it."""
        self._under_way[bytes.fromhex(item.object_id)] = item
        await trio.sleep(LATER_S)
        if self._let_go(item):
            self._ledger.work.give_back(item)

    def _let_go(self, item: Item) -> bool:
        """End that an object is this flow's; tell whether it was until now."""
        held = self._under_way.pop(bytes.fromhex(item.object_id), None) is not None
        self._answered.set()
        self._answered = trio.Event()
        return held


def _may_have_changed(item: Item, error: FascicleError) -> bool:
    """Tell whether a node found bytes that are not the object's, which came from a file that nobody compared since."""
    return isinstance(error, CorruptError) and item.size_bytes > inspection.BODY_BYTES_MAX


async def _encoded_blocks(
    item: Item, encoding: str, chooser: Chooser, encoders: Encoders
) -> AsyncGenerator[bytes, None]:
    """Yield a large object's stored bytes in blocks of at most 1 MiB, read and encoded in threads.

    Raises:
        NotSuitableError: the encoder cannot, or is far slower than it should be.
    """
    encoder = get_encoding(encoding).encoder()
    source = inspection.blocks(item.sources[0].path, item.size_bytes)
    seconds, done_bytes = 0.0, 0
    while (block := await trio.to_thread.run_sync(lambda: next(source, None))) is not None:
        stored = block
        if encoding != "raw":
            stored, took_s = await encoders.feed(encoder, block)
            seconds, done_bytes = seconds + took_s, done_bytes + len(block)
            if item.chosen is not None and seconds > chooser.seconds_max(item.chosen[0], encoding, done_bytes):
                chooser.set_aside(item.chosen[0], encoding)
                raise NotSuitableError(f"{encoding} is too slow for this object")
        for start in range(0, len(stored), inspection.BLOCK_BYTES):
            yield stored[start : start + inspection.BLOCK_BYTES]
    if rest := encoder.finish():
        yield rest
