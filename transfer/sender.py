"""The sender: streams files to N nodes through the gateway, in parallel, and commits what is durable.

    files -> inspect (threads) -> offer (gateway) -> work -> one task a flow (nodes) -> receipts (gateway) -> commit

All stages run at once, with bounded memory between them; nothing waits for a round trip that another object could fill.
A broken flow gives back what it had under way; a gateway that is away is asked again. Used by `fascicle send` and by
the agent's daemon. Refuses to do: finding files, showing progress, remembering anything after it returns.
"""

import math
import ssl
from collections.abc import AsyncIterable
from typing import Final

import trio

from transfer import inspection, merkle
from transfer.api import OFFER_OBJECTS_MAX, Commit, Go, Node, Offered, OpenTransfer, SignedReceipts
from transfer.client import GatewayClient
from transfer.errors import (
    FascicleError,
    ProtocolError,
    SettingsError,
    UnauthorisedError,
    UnreachableError,
    UnusableFileError,
)
from transfer.groups import first_error_only
from transfer.inspection import BODY_BYTES_MAX, Inspected, SourceFile
from transfer.log import get_logger
from transfer.outcomes import Counters, Outcome, SendOptions, SendResult
from transfer.refusals import Fate, judge
from transfer.sending import converse
from transfer.work import Budget, Item, Work

log = get_logger()
BODIES_BYTES_MAX: Final = 64 << 20
BATCH_FILES: Final = 32
BATCH_BYTES: Final = 8 << 20
INSPECTORS: Final = 2
FLOWS_LEAST: Final = 4  # with fewer nodes than this, several flows go to each
OFFER_PAUSE_S: Final = 0.08  # so that a fast source makes few large offers
RECEIPTS_PAUSE_S: Final = 0.25  # the same for receipts; the last ones do not wait
RECONNECT_S_MAX: Final = 5.0
RECEIPT_BATCHES_MAX: Final = 256
RECEIPTS_BYTES_MAX: Final = 4 << 20  # in one request; with one batch more and as base64 well within the gateway's limit


async def send_files(
    client: GatewayClient,
    files: AsyncIterable[SourceFile],
    options: SendOptions,
    *,
    context: ssl.SSLContext,
    counters: Counters | None = None,
    totals: tuple[int, int] | None = None,
) -> SendResult:
    """Send `files` as one transfer and commit it.

    `context` is the sender's TLS identity for the nodes; `totals` are objects and bytes when known beforehand. Files
    that cannot be sent are outcomes, not errors.

    Raises:
        UnreachableError: the gateway, or every node, stayed away for `options.patience_s`.
        FascicleError: the gateway refused the transfer.
    """
    objects, size_bytes = totals or (None, None)
    wish = OpenTransfer(objects=objects, bytes=size_bytes, replicas=options.replicas, nodes=options.nodes)
    transfer = Transfer(client, options, context, counters or Counters())
    with first_error_only():
        await transfer.run(wish, files)
    return await transfer.commit()


class Transfer:
    """One transfer under way."""

    go: Go  # from when `_opened` is set
    nodes: dict[str, Node]

    def __init__(
        self, client: GatewayClient, options: SendOptions, context: ssl.SSLContext, counters: Counters
    ) -> None:
        self.client, self.options, self.context, self.counters = client, options, context, counters
        self.work = Work()
        self._opened = trio.Event()
        self._budget = Budget(BODIES_BYTES_MAX)
        self._items: dict[str, Item] = {}  # everything offered, until it is settled
        self._settled: dict[str, FascicleError | None] = {}  # None: durable
        self._outcomes: list[Outcome] = []
        self._last_receipts: list[SignedReceipts] = []
        self._with_flows: set[str] = set()  # the nodes that may be given objects
        self._moved_s = trio.current_time()
        self._renewing = trio.Lock()
        self._receipts, self._to_post = trio.open_memory_channel[SignedReceipts](RECEIPT_BATCHES_MAX)

    async def run(self, wish: OpenTransfer, files: AsyncIterable[SourceFile]) -> None:
        """Run all stages to their end; the first files are read while the transfer is being opened."""
        async with trio.open_nursery() as outer:
            outer.start_soon(self._post_receipts)
            async with self._receipts, trio.open_nursery() as nursery:
                nursery.start_soon(self._prepare, files)
                self.go = await self.client.open_transfer(wish)
                self.nodes = {node.node_id: node for node in self.go.nodes}
                self._opened.set()
                for node in self._flow_nodes():
                    nursery.start_soon(self._drive, node)

    async def commit(self) -> SendResult:
        """Commit what is durable.

        Raises:
            FascicleError: the gateway does not agree, or stays away.
        """
        durable = [object_id for object_id, error in self._settled.items() if error is None]
        if not durable:
            return SendResult(self._outcomes, None)
        claim = Commit(objects=len(durable), merkle_root=merkle.merkle_root(durable), receipts=self._last_receipts)
        receipt = await self.client.commit(self.go.transfer_id, claim)
        if (receipt.objects, receipt.merkle_root) != (claim.objects, claim.merkle_root):
            raise ProtocolError("the gateway's receipt is not for what was sent; send again")
        return SendResult(self._outcomes, receipt)

    def _flow_nodes(self) -> list[Node]:
        """Return one entry a flow, nodes in turn."""
        count = self.options.flows or max(len(self.go.nodes), FLOWS_LEAST)
        self.counters.flows = count
        chosen = [self.go.nodes[index % len(self.go.nodes)] for index in range(count)]
        self._with_flows = {node.node_id for node in chosen}
        return chosen

    # Stage 1 and 2: inspect and offer

    async def _prepare(self, files: AsyncIterable[SourceFile]) -> None:
        send_batch, receive_batch = trio.open_memory_channel[list[SourceFile]](0)
        send_item, receive_item = trio.open_memory_channel[Item](math.inf)  # bounded by the budget of bodies
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._offer_all, receive_item)
            async with send_item, trio.open_nursery() as inspectors:
                for _ in range(INSPECTORS):
                    inspectors.start_soon(self._inspect_all, receive_batch.clone(), send_item.clone())
                receive_batch.close()
                async with send_batch:
                    await self._gather(files, send_batch)
        self.work.no_more()

    async def _gather(
        self, files: AsyncIterable[SourceFile], batches: trio.MemorySendChannel[list[SourceFile]]
    ) -> None:
        """Put files together so that small ones share one call into a thread."""
        batch: list[SourceFile] = []
        size_bytes = 0
        async for file in files:
            weight = _body_bytes(file.size_bytes)
            if batch and (len(batch) >= BATCH_FILES or size_bytes + weight > BATCH_BYTES):
                await batches.send(batch)
                batch, size_bytes = [], 0
            await self._budget.take(weight)
            batch.append(file)
            size_bytes += weight
        if batch:
            await batches.send(batch)

    async def _inspect_all(
        self, batches: trio.MemoryReceiveChannel[list[SourceFile]], items: trio.MemorySendChannel[Item]
    ) -> None:
        async with batches, items:
            async for batch in batches:
                for source, inspected in await trio.to_thread.run_sync(self._inspect_batch, batch):
                    kept = 0 if isinstance(inspected, UnusableFileError) else len(inspected.body or b"")
                    self._budget.give_back(_body_bytes(source.size_bytes) - kept)
                    if isinstance(inspected, UnusableFileError):
                        self._fail_source(source, inspected)
                    else:
                        await items.send(Item(inspected.object_id, inspected.size_bytes, [source], inspected.body))

    def _inspect_batch(self, batch: list[SourceFile]) -> list[tuple[SourceFile, Inspected | UnusableFileError]]:
        inspected: list[tuple[SourceFile, Inspected | UnusableFileError]] = []
        for source in batch:
            try:
                inspected.append((source, inspection.inspect(source.path, any_file=self.options.any_file)))
            except UnusableFileError as error:
                inspected.append((source, error))
        return inspected

    async def _offer_all(self, items: trio.MemoryReceiveChannel[Item]) -> None:
        """Offer what has gathered while the last offer was under way."""
        await self._opened.wait()
        async for first in items:
            batch = [first]
            while len(batch) < OFFER_OBJECTS_MAX:
                try:
                    batch.append(items.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            await self._offer(batch)
            await trio.sleep(OFFER_PAUSE_S)

    async def _offer(self, batch: list[Item]) -> None:
        offered = [
            Offered(object_id=item.object_id, size_bytes=item.size_bytes, name=item.sources[0].name) for item in batch
        ]
        answer = await self.client.offer(self.go.transfer_id, offered)
        self.moved()
        stored = set(answer.stored)
        for item in batch:
            self._take_answer(item, stored=item.object_id in stored)

    def _take_answer(self, item: Item, *, stored: bool) -> None:
        object_id = item.object_id
        if (twin := self._items.get(object_id)) is not None:  # the same bytes under another name, still on their way
            twin.sources.extend(item.sources)
            self._drop_body(item)
        elif object_id in self._settled:
            self._drop_body(item)
            self._report(item, self._settled[object_id], skipped=True)
        elif stored:
            self._drop_body(item)
            self._settled[object_id] = None
            self._report(item, None, skipped=True)
        else:
            self._items[object_id] = item
            self.work.add(item)

    # Stage 3: flows

    async def _drive(self, node: Node) -> None:
        """Keep one flow to a node, opened anew when it breaks, until everything is settled."""
        pause_s = 0.1
        while not self.work.settled.is_set():
            started_s = trio.current_time()
            try:
                with first_error_only():
                    await converse(self, self.nodes.get(node.node_id, node))
            except SettingsError:
                raise  # such as a congestion control that this kernel has not: no other flow fares better
            except FascicleError as error:
                log.debug("flow_broke", node_id=node.node_id, code=error.code, reason=error.message)
                await self._after_break(error)
            if trio.current_time() - started_s > RECONNECT_S_MAX:
                pause_s = 0.1
            with trio.move_on_after(pause_s):
                await self.work.settled.wait()
            pause_s = min(pause_s * 2, RECONNECT_S_MAX)

    async def _after_break(self, error: FascicleError) -> None:
        """Give up when nothing at all has moved for too long; renew the ticket, which also names the live nodes.

        Raises:
            FascicleError: `error` itself.
        """
        if self.work.settled.is_set():
            return
        if self.work.idle:
            self.moved()  # nothing was to be sent
        if trio.current_time() - self._moved_s > self.options.patience_s:
            raise error if isinstance(error, UnauthorisedError) else UnreachableError(error.message) from error
        await self.renew(self.go.ticket)

    async def renew(self, ticket: bytes) -> None:
        """Get a new ticket in place of `ticket`, unless another flow has got one already."""
        async with self._renewing:
            if self.go.ticket != ticket:
                return
            self.go = await self.client.renew(self.go.transfer_id)
            self.nodes.update({node.node_id: node for node in self.go.nodes})

    # What flows report

    def moved(self) -> None:
        """Note that something moves, so that patience begins anew."""
        self._moved_s = trio.current_time()

    async def stored(self, receipts: SignedReceipts) -> None:
        """Queue receipts for the gateway."""
        await self._receipts.send(receipts)

    def durable(self, item: Item, node_id: str) -> None:
        """Settle an object that is durable on all its replicas."""
        self.counters.node_bytes[node_id] = self.counters.node_bytes.get(node_id, 0) + item.size_bytes
        self._settle(item, None)

    def refused(self, item: Item, node_id: str, error: FascicleError) -> Fate:
        """Decide about an object that a node refused, and carry it out but for a pause."""
        item.refusals += 1
        patient = trio.current_time() - self._moved_s < self.options.patience_s
        fate = judge(item, error, nodes=self._with_flows, node_id=node_id, patient=patient)
        if fate is Fate.FAIL:
            self._settle(item, error)
            return fate
        if fate is Fate.ELSEWHERE:
            item.refused_by[node_id] = error
        item.raw_only = item.raw_only or fate is Fate.AGAIN
        if fate is not Fate.LATER:
            self.work.give_back(item)
        return fate

    def failed(self, item: Item, error: FascicleError) -> None:
        """Settle an object whose file cannot be read any more."""
        self._settle(item, error)

    def release(self, item: Item) -> None:
        """Let go of an object's bytes once they are on their way; they are read again if they must go again."""
        self._drop_body(item)

    async def reload(self, item: Item) -> bytes:
        """Read a small object's bytes again.

        Raises:
            UnusableFileError: the file is not what it was.
        """
        source = item.sources[0]
        # One a flow at most. To wait here could be for ever: what fills the budget leaves by the flows that wait.
        self._budget.take_over_limit(item.size_bytes)
        try:
            item.body = await trio.to_thread.run_sync(inspection.read_again, source.path, item.object_id)
        except BaseException:
            self._budget.give_back(item.size_bytes)
            raise
        return item.body

    def _settle(self, item: Item, error: FascicleError | None) -> None:
        self.moved()
        del self._items[item.object_id]
        self._drop_body(item)
        self._settled[item.object_id] = error
        if error is None:
            self.counters.objects += 1
            self.counters.bytes += item.size_bytes
        self._report(item, error, skipped=False)
        self.work.settle()

    def _report(self, item: Item, error: FascicleError | None, *, skipped: bool) -> None:
        for number, source in enumerate(item.sources):
            if error is not None:
                self._fail_source(source, error)
                continue
            twin = skipped or number > 0
            self.counters.skipped += twin
            self._outcomes.append(Outcome(source, item.object_id, skipped=twin))

    def _fail_source(self, source: SourceFile, error: FascicleError) -> None:
        outcome = Outcome(source, error=error)
        self.counters.failed += not outcome.ignored
        self._outcomes.append(outcome)

    def _drop_body(self, item: Item) -> None:
        if item.body is not None:
            self._budget.give_back(len(item.body))
            item.body = None

    # Stage 4: receipts

    async def _post_receipts(self) -> None:
        """Hand receipts on to the gateway, as many at once as have gathered; the last go with the commit."""
        async for first in self._to_post:
            batch, size_bytes = [first], len(first.batch)
            with trio.move_on_after(RECEIPTS_PAUSE_S):
                async for following in self._to_post:
                    batch.append(following)
                    size_bytes += len(following.batch)
                    if len(batch) == RECEIPT_BATCHES_MAX or size_bytes >= RECEIPTS_BYTES_MAX:
                        break
                else:
                    self._last_receipts = batch
                    return
            await self.client.receipts(self.go.transfer_id, batch)


def _body_bytes(size_bytes: int) -> int:
    """Return how much memory a file of this size takes while it waits."""
    return size_bytes if size_bytes <= BODY_BYTES_MAX else 0
