"""The sender: streams files to N nodes through the gateway, in parallel, and commits what is durable.

    files -> inspect (threads) -> offer (gateway) -> work -> one task a flow (nodes) -> receipts (gateway) -> commit

All stages run at once, with bounded memory between them; nothing waits for a round trip that another object could fill.
A broken flow gives back what it had under way; a gateway that is away is asked again. Used by `fascicle send` and by
the agent's daemon. Refuses to do: finding files, showing progress, remembering anything after it returns.
"""

import math
import ssl
from collections.abc import AsyncIterable, Collection
from contextlib import suppress
from typing import Final

import trio

from transfer import merkle
from transfer.api import OFFER_OBJECTS_MAX, Commit, CommitReceipt, Go, Node, Offered, OpenTransfer, SignedReceipts
from transfer.chooser import open_chooser
from transfer.client import GatewayClient
from transfer.control import sockets
from transfer.control.flows import first_flows
from transfer.control.gate import Gate
from transfer.control.priority import Priority
from transfer.control.readings import Limits
from transfer.encoders import Encoders, default_workers
from transfer.errors import ProtocolError
from transfer.fleet import Fleet, Place
from transfer.groups import first_error_only
from transfer.inspection import SourceFile
from transfer.ledger import Ledger
from transfer.outcomes import Counters, Outcome, SendOptions, SendResult
from transfer.pacing import Pacer
from transfer.paths import KnownPath
from transfer.preparing import prepare
from transfer.sending import converse
from transfer.steering import Steering
from transfer.work import Item

FLOWS_MAX: Final = 64
FLOWS_MAX_NODE: Final = 40  # a node takes 48 in all
OFFER_PAUSE_S: Final = 0.1  # so that a fast source makes few large offers
OFFER_LOW_COUNT: Final = 16  # objects still to send: an offer is answered before flows have nothing left
RECEIPTS_PAUSE_S: Final = 0.5  # the same for receipts; the last ones do not wait
RECEIPTS_PAUSE_S_MAX: Final = 4.0  # a request is 3 ms of the gateway's processor, and there may be a crowd of senders
RECEIPT_BATCHES_FEW: Final = 64  # in one request: the next may wait twice as long
RECEIPTS_BYTES_MAX: Final = 4 << 20  # in one request; with one batch more and as base64 well within the gateway's limit
RECEIPT_BATCHES_MAX: Final = 512
CLOSING_S: Final = 2.0  # for flows to end in good order after the commit


async def send_files(
    client: GatewayClient,
    files: AsyncIterable[SourceFile],
    options: SendOptions,
    *,
    context: ssl.SSLContext,
    counters: Counters | None = None,
    outcomes: list[Outcome] | None = None,
    totals: tuple[int, int] | None = None,
    gate: Gate | None = None,
) -> SendResult:
    """Send `files` as one transfer and commit it.

    `context` is the sender's TLS identity for the nodes; `counters` and `outcomes` are filled while it goes, and stand
    when it fails; `totals` are objects and bytes when known beforehand; more urgent transfers at the same `gate` go
    first. Files that cannot be sent are outcomes, not errors.

    Raises:
        UnreachableError: the gateway, or every node, stayed away for `options.patience_s`.
        FascicleError: the gateway refused the transfer.
    """
    objects, size_bytes = totals or (None, None)
    wish = OpenTransfer(objects=objects, bytes=size_bytes, replicas=options.replicas, nodes=options.nodes)
    ledger = Ledger(counters or Counters(), options.patience_s, outcomes)
    ledger.total_bytes = size_bytes
    transfer = _Transfer(client, options, context, ledger)
    with first_error_only(), (gate or Gate()).enter(options.priority, ledger.work):
        return await transfer.run(wish, files)


class _Transfer:
    """One transfer under way."""

    _transfer_id: str  # from when the transfer is open

    def __init__(self, client: GatewayClient, options: SendOptions, context: ssl.SSLContext, ledger: Ledger) -> None:
        self._client, self._options, self._context, self._ledger = client, options, context, ledger
        self._started_s = trio.current_time()
        self._path = KnownPath(options.memory, client.gateway, options.congestion)
        self._pacer = Pacer(options.timetable, yields=options.priority is Priority.BACKGROUND)
        workers = options.workers or default_workers()
        self._chooser = open_chooser(options.encoding, self._path.link, workers=workers)
        self._encoders = Encoders(ledger, self._chooser, self._path.link, workers=workers)
        ledger.encodes = self._chooser.encodes
        ledger.work.remembered = self._path.homes
        self._receipts: list[SignedReceipts] = []  # not handed on yet
        self._receipts_left = trio.Event()  # some were handed on
        self._receipts_pause = trio.CancelScope()  # in which more are waited for
        self._posting = trio.Lock()

    async def run(self, wish: OpenTransfer, files: AsyncIterable[SourceFile]) -> SendResult:
        """Run all stages to their end; the first files are read while the transfer is being opened."""
        send_item, receive_item = trio.open_memory_channel[Item](math.inf)  # bounded by the budget of bodies
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prepare, files, send_item)
            nursery.start_soon(self._path.recall)
            nursery.start_soon(self._encode)
            go = await self._open(wish, receive_item)
            self._path.link.hint(self._client.rtt_s)
            self._ledger.budget.widen()
            nursery.start_soon(self._offer_all, receive_item)
            nursery.start_soon(self._post_receipts)
            nursery.start_soon(self._serve_flows, go)
            await self._ledger.work.settled.wait()
            result = SendResult(self._ledger.outcomes, await self._commit())
            nursery.cancel_scope.deadline = trio.current_time() + CLOSING_S
        return result

    async def _prepare(self, files: AsyncIterable[SourceFile], items: trio.MemorySendChannel[Item]) -> None:
        await prepare(files, self._ledger, items, any_file=self._options.any_file)

    async def _encode(self) -> None:
        """Encode until everything is settled; not at all where nothing is encoded."""
        if not self._ledger.encodes:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._encoders.serve)
            await self._ledger.work.settled.wait()
            nursery.cancel_scope.cancel()

    async def _open(self, wish: OpenTransfer, items: trio.MemoryReceiveChannel[Item]) -> Go:
        """Open the transfer; what is there by the time that the gateway listens is offered with it."""
        batch: list[Item] = []

        def offer_first() -> list[Offered]:
            _fill(batch, items)
            return [_offered(item) for item in batch]

        go = await self._client.open_transfer(wish, offer_first)
        self._transfer_id = go.transfer_id
        self._take_answers(batch, go.stored)
        return go

    async def _offer_all(self, items: trio.MemoryReceiveChannel[Item]) -> None:
        """Offer what has gathered while the last offer was under way."""
        async for first in items:
            batch = [first]
            _fill(batch, items)
            answer = await self._client.offer(self._transfer_id, [_offered(item) for item in batch])
            self._take_answers(batch, answer.stored)
            with trio.move_on_after(OFFER_PAUSE_S):
                await self._ledger.work.wait_low(OFFER_LOW_COUNT)
        self._ledger.work.no_more()

    def _take_answers(self, batch: list[Item], stored: Collection[str]) -> None:
        self._ledger.moved()
        known = set(stored)
        for item in batch:
            self._ledger.take_answer(item, stored=item.object_id in known)

    # Flows

    async def _serve_flows(self, go: Go) -> None:
        """Keep the flows, and steer their number, until everything is settled and they have ended."""
        options, path = self._options, self._path
        loss_based = sockets.is_loss_based(sockets.effective(options.congestion))
        limits = Limits(
            first=options.flows or path.flows or first_flows(self._client.rtt_s, loss_based=loss_based),
            most=min(FLOWS_MAX, FLOWS_MAX_NODE * len(go.nodes)),
            loss_based=loss_based,
        )
        fleet = Fleet(
            self._ledger, go, converse=self._converse, renew=self._client.renew, patience_s=self._chooser.patience_s
        )
        steering = Steering(
            fleet,
            self._ledger,
            limits,
            path.link,
            self._pacer,
            fixed=options.flows is not None or self._pacer.is_limited,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(steering.serve)
            await fleet.serve(limits.first)
            nursery.cancel_scope.cancel()
        await path.remember(steering.state, trio.current_time() - self._started_s)

    async def _converse(self, fleet: Fleet, place: Place, node: Node) -> None:
        with first_error_only():
            await converse(
                self._ledger,
                fleet,
                place,
                node,
                chooser=self._chooser,
                encoders=self._encoders,
                congestion=self._options.congestion,
                turn=self._turn,
                context=self._context,
                post=self._take_receipts,
                remember_part=self._path.remember_part,
            )

    async def _turn(self, size_bytes: int) -> int:
        """Wait until a share of an object may go; return how much of `size_bytes` that is."""
        since_s = trio.current_time()
        await self._ledger.work.wait_turn()
        size_bytes = min(size_bytes, self._pacer.share_bytes() or size_bytes)
        await self._pacer.take(size_bytes)
        self._ledger.counters.wait_turn(since_s)
        return size_bytes

    # Receipts

    async def _take_receipts(self, receipts: SignedReceipts) -> None:
        """Queue receipts for the gateway; wait when it does not take them."""
        while self._receipts_full():
            self._receipts_pause.cancel()
            await self._receipts_left.wait()
        self._receipts.append(receipts)

    def _receipts_full(self) -> bool:
        size_bytes = sum(len(one.batch) for one in self._receipts)
        return size_bytes >= RECEIPTS_BYTES_MAX or len(self._receipts) >= RECEIPT_BATCHES_MAX

    async def _post_receipts(self) -> None:
        """Hand receipts on, as many at once as have gathered; the last go with the commit.

        Before the last objects those that are there are handed on, so that the commit has few and waits for none.
        """
        work = self._ledger.work
        settled, pause_s = work.settled, RECEIPTS_PAUSE_S
        while not settled.is_set():
            if not self._receipts_full():
                with trio.move_on_after(pause_s) as self._receipts_pause:
                    await (settled.wait() if work.is_ending else work.wait_ending())
            if self._receipts and not settled.is_set():
                few = len(self._receipts) < RECEIPT_BATCHES_FEW
                pause_s = min(2 * pause_s, RECEIPTS_PAUSE_S_MAX) if few else RECEIPTS_PAUSE_S
                async with self._posting:
                    await self._client.receipts(self._transfer_id, self._hand_over())

    def _hand_over(self) -> list[SignedReceipts]:
        receipts, self._receipts = self._receipts, []
        self._receipts_left.set()
        self._receipts_left = trio.Event()
        return receipts

    async def _commit(self) -> CommitReceipt | None:
        """Commit what is durable; None when nothing is.

        Raises:
            FascicleError: the gateway does not agree, or stays away.
        """
        durable = self._ledger.durable_ids()
        if not durable:
            return None
        root = merkle.merkle_root(durable)
        async with self._posting:  # what is on its way must have come before
            claim = Commit(objects=len(durable), merkle_root=root, receipts=self._hand_over())
            receipt = await self._client.commit(self._transfer_id, claim)
        if (receipt.objects, receipt.merkle_root) != (claim.objects, claim.merkle_root):
            raise ProtocolError("the gateway's receipt is not for what was sent; send again")
        return receipt


def _fill(batch: list[Item], items: trio.MemoryReceiveChannel[Item]) -> None:
    """Add what is there to `batch`, up to as many as one offer may have."""
    with suppress(trio.WouldBlock, trio.EndOfChannel):  # no more is there now, or ever
        while len(batch) < OFFER_OBJECTS_MAX:
            batch.append(items.receive_nowait())


def _offered(item: Item) -> Offered:
    return Offered(object_id=item.object_id, size_bytes=item.size_bytes, name=item.sources[0].name)
