"""The flows of one transfer: as many as are wanted, each kept to some node, opened anew when it breaks.

A place is one flow's task. It chooses a node, converses until there is nothing more to do, and chooses again when that
ended early. Places are added and retired while the transfer runs (`transfer.steering` decides); a retired one answers
for what it has under way, then ends. Where every node says that it has no room, one place waits in the name of all:
each that asks costs busy nodes a handshake. The others ask again after a while. Refuses to do: the conversation
(`transfer.sending`), deciding how many.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from transfer.api import Go, Node
from transfer.comeback import spread_s
from transfer.errors import FascicleError, SettingsError, UnauthorisedError, UnreachableError
from transfer.flow import Flow
from transfer.ledger import Ledger
from transfer.log import get_logger
from transfer.routes import Routes

log = get_logger()
RECONNECT_S: Final = 0.1
RECONNECT_S_MAX: Final = 5.0
CROWDED_S: Final = 10.0  # after which those ask again who left the waiting to another place of their transfer


@dataclass(eq=False)
class Place:
    """One flow's place. `leaving`: nothing more is taken for the node `node_id`, the last that it chose."""

    flow: Flow | None = None
    retired: bool = False
    leaving: bool = False
    node_id: str = ""


Converse = Callable[["Fleet", Place, Node], Awaitable[None]]
Renew = Callable[[str], Awaitable[Go]]


class Fleet:
    """The flows of one transfer; `serve` runs them until everything is settled."""

    def __init__(
        self,
        ledger: Ledger,
        go: Go,
        *,
        converse: Converse,
        renew: Renew,
        patience_s: Callable[[int], float] = lambda _: 0.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ledger, self._go = ledger, go
        self._converse, self._renew = converse, renew
        self.patience_s = patience_s  # how long a flow waits for an encoder before it takes an object as it is
        self._jitter = jitter
        self._free_at_s: dict[str, float] = {}  # when nodes that were busy are to be asked again
        self._routes = Routes(go.nodes)
        self._places: list[Place] = []
        self._count = 0  # of places that are wanted; while nodes have no room there are fewer
        self._renewing = trio.Lock()
        self._nursery: trio.Nursery | None = None
        ledger.nodes = self._routes.node_ids
        ledger.work.is_expected = self._is_expected

    @property
    def go(self) -> Go:
        """The ticket and nodes as the gateway gave them last."""
        return self._go

    @property
    def wanted(self) -> int:
        """How many places there are that shall stay."""
        return sum(not place.retired for place in self._places)

    def flows(self) -> list[Flow]:
        """Return the flows that are open."""
        return [place.flow for place in self._places if place.flow is not None]

    def want(self, count: int) -> None:
        """Have `count` flows from now on."""
        self._count = count
        for _ in range(self.wanted, count):
            self._start(Place())
        for place in [place for place in self._places if not place.retired][count:]:
            place.retired = place.leaving = True
        self._ledger.counters.flows = max(self._ledger.counters.flows, count)
        self._ledger.work.wake()

    async def serve(self, count: int) -> None:
        """Keep the flows, `count` at first, until everything is settled.

        Raises:
            FascicleError: nothing at all moved for longer than the patience, or no flow can ever be opened.
        """
        async with trio.open_nursery() as self._nursery:
            self.want(count)
            await self._ledger.work.settled.wait()

    def leave(self, place: Place) -> None:
        """Let a place whose node takes nothing more go to another node, if there is one without a flow."""
        if self._routes.has_spare():
            place.leaving = True

    def _is_expected(self, node_id: str) -> bool:
        """Tell whether a flow to the node is there, or its place has not yet chosen another node."""
        return any(place.node_id == node_id and not place.retired for place in self._places)

    def _start(self, place: Place) -> None:
        self._places.append(place)
        if self._nursery is not None:
            self._nursery.start_soon(self._keep, place)

    async def _keep(self, place: Place) -> None:
        """Keep one flow until everything is settled, or the place is retired."""
        settled = self._ledger.work.settled
        pause_s = RECONNECT_S
        try:
            while not (settled.is_set() or place.retired):
                started_s = trio.current_time()
                left = await self._attempt(place)
                if left or trio.current_time() - started_s > RECONNECT_S_MAX:
                    pause_s = RECONNECT_S
                if not left and not place.retired:
                    told_s = self._told_s()
                    if told_s and self.wanted > 1 and self._nursery is not None:
                        self._nursery.start_soon(self._ask_again, max(told_s, CROWDED_S))
                        return
                    with trio.move_on_after(max(pause_s, told_s)):
                        await settled.wait()
                    pause_s = min(pause_s * 2, RECONNECT_S_MAX)
        finally:
            self._places.remove(place)
            self._ledger.work.wake()

    async def _ask_again(self, pause_s: float) -> None:
        """After a pause, take the place anew that left the waiting to another."""
        with trio.move_on_after(pause_s):
            await self._ledger.work.settled.wait()
            return
        if self.wanted < self._count:
            self._start(Place())

    async def _attempt(self, place: Place) -> bool:
        """Converse with one node to the end; true when the place left the node in good order."""
        work = self._ledger.work
        node = self._routes.pick(work.homes(), work.refusing(self._routes.node_ids))
        if place.node_id != node.node_id:
            place.node_id = node.node_id
            work.wake()  # what was left for another node's flow may no longer be
        place.leaving = place.retired
        in_trouble = True
        try:
            await self._converse(self, place, node)
            in_trouble = place.leaving and not place.retired
        except SettingsError:
            raise  # such as a congestion control that this kernel has not: no other flow fares better
        except FascicleError as error:
            log.debug("flow_broke", node_id=node.node_id, code=error.code, reason=error.message)
            if error.retry_after_s:
                self._free_at_s[node.node_id] = trio.current_time() + spread_s(error.retry_after_s, self._jitter())
                self._ledger.told_to_wait()
            await self._after_break(error)
            return False
        finally:
            place.flow = None
            self._routes.close(node.node_id, in_trouble=in_trouble)
        return True

    def _told_s(self) -> float:
        """Return how long every node that there is has said to wait, 0.0 when one has not."""
        now_s = trio.current_time()
        return max(0.0, min((self._free_at_s.get(each, 0.0) for each in self._routes.node_ids), default=0.0) - now_s)

    async def _after_break(self, error: FascicleError) -> None:
        """Give up when nothing at all has moved for too long; renew the ticket, which also names the live nodes.

        Raises:
            FascicleError: `error` itself.
        """
        work = self._ledger.work
        if work.settled.is_set():
            return
        if work.idle or work.paused:
            self._ledger.moved()  # nothing was to be sent
        if not self._ledger.patient:
            raise error if isinstance(error, UnauthorisedError) else UnreachableError(error.message) from error
        if not error.retry_after_s:  # else the ticket is good, and the gateway need not be asked by the whole crowd
            await self._renew_from(self._go.ticket)
        flows = {place.node_id for place in self._places if place.flow is not None}
        self._ledger.fail_refused(self._routes.node_ids | flows)  # there may be fewer nodes now than it was left to

    async def _renew_from(self, ticket: bytes) -> None:
        """Get a new ticket in place of `ticket`, unless another flow has got one already."""
        async with self._renewing:
            if self._go.ticket != ticket:
                return
            try:
                self._go = await self._renew(self._go.transfer_id)
            except FascicleError:
                if self._ledger.work.settled.is_set():
                    return  # committed meanwhile: nothing is to be renewed
                raise
        self._routes.update(self._go.nodes)
        self._ledger.nodes = self._routes.node_ids
