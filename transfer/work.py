"""The work of one transfer: which objects are still to go, shared by all flows by stealing.

A flow takes the next object when it has credit, so a slow node takes few and a fast one many; what a broken flow had
under way goes back to the front. Objects may wait for an encoder first (`plain`): a flow takes one of these as it is
only when it has waited in vain for longer than encoding would save. Refuses to do: I/O, encoding, deciding what a
refusal means (`transfer.refusals`).
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio
from typing_extensions import Buffer

from transfer.dicom.pixels import Kind
from transfer.errors import FascicleError
from transfer.inspection import SourceFile

LAST_COUNT: Final = 16  # objects that still wait when a transfer is nearly at its end


@dataclass(frozen=True, slots=True)
class Encoded:
    """An object's stored form, in memory."""

    encoding: str
    stored: Buffer
    kind: Kind | str  # of image, as the encoding was chosen for it


@dataclass(slots=True, eq=False)
class Item:
    """One object of the transfer, all files that are it, and its bytes while they are in memory.

    `encoded`: in place of `body`, once an encoder is done with it.
    """

    object_id: str
    size_bytes: int
    sources: list[SourceFile]
    body: bytes | None
    encoded: Encoded | None = None
    refused_by: dict[str, FascicleError] = field(default_factory=dict)
    damaged_count: int = 0  # how often it arrived damaged
    raw_only: bool = False
    chosen: tuple[Kind | str, str] | None = None  # kind and encoding, once it has been encoded or, if large, chosen
    furthest_block: int = 0  # of a large object: how far any flow has come with it
    home: str = ""  # of a large object: the node that has a part of it, from where it can go on

    @property
    def wire_bytes(self) -> int:
        """How much goes for it, as far as that is known."""
        return self.size_bytes if self.encoded is None else memoryview(self.encoded.stored).nbytes


@dataclass(slots=True, eq=False)
class _Taker:
    """A flow that waits for an object for its node."""

    node_id: str
    woken: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True, eq=False)
class _Watcher:
    """Somebody who waits until enough was taken; woken no sooner, as many objects are taken."""

    holds: Callable[[], bool]
    woken: trio.Event = field(default_factory=trio.Event)


class Work:
    """The objects that are wanted and not settled yet."""

    def __init__(self) -> None:
        self._ready: deque[Item] = deque()
        self._plain: deque[Item] = deque()  # wait for an encoder
        self._unsettled = 0
        self._complete = False
        self.is_expected: Callable[[str], bool] = lambda _: False  # whether a flow to this node is there, or comes
        self.remembered: dict[str, str] = {}  # of large objects that an earlier sender began: the node with a part
        self.paused = False  # for the sake of a more urgent transfer
        self._changed = trio.Event()
        self._takers: list[_Taker] = []
        self._watchers: list[_Watcher] = []
        self.settled = trio.Event()  # everything is, and nothing more comes

    def add(self, item: Item, *, plain: bool = False) -> None:
        """Take one more object; `plain`: an encoder may have it first."""
        item.home = item.home or self.remembered.pop(item.object_id, "")
        self._unsettled += 1
        (self._plain if plain else self._ready).append(item)
        self.wake()

    def add_ready(self, item: Item) -> None:
        """Take back an object that an encoder had taken."""
        self._ready.append(item)
        self._wake_taker(item)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, neither for flows nor for encoders."""
        return not self._ready and not self._plain

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing waits and nothing more comes, but for what flows give back."""
        return self._complete and self.is_empty

    @property
    def ready_bytes(self) -> int:
        """How much could go at once, as it would go."""
        return sum(item.wire_bytes for item in self._ready)

    @property
    def is_ending(self) -> bool:
        """Whether few objects wait and no more come."""
        return self._complete and len(self._ready) + len(self._plain) <= LAST_COUNT

    def no_more(self) -> None:
        """Say that nothing more is added."""
        self._complete = True
        self._note_taken()
        self._check()

    def give_back(self, item: Item) -> None:
        """Put an object that was taken back to the front."""
        self._ready.appendleft(item)
        self.wake()

    def settle(self) -> None:
        """Count one object as stored or failed for good."""
        self._unsettled -= 1
        self._check()

    def pause(self, paused: bool) -> None:
        """Stop or go on giving out objects and turns; what is under way stays so."""
        self.paused = paused
        self.wake()

    async def wait_turn(self) -> None:
        """Wait while paused, before each share of an object that is sent."""
        while self.paused and not self.settled.is_set():
            await self._changed.wait()

    def homes(self) -> set[str]:
        """Return the nodes that have a part of a large object that waits, or may come."""
        return {item.home for item in self._ready if item.home} | set(self.remembered.values())

    def take_refused(self, node_ids: set[str]) -> list[Item]:
        """Take everything that waits and that all of these nodes have refused: nobody else would."""
        refused = [item for item in self._ready if node_ids <= item.refused_by.keys()]
        for item in refused:
            self._ready.remove(item)
        self._note_taken()
        return refused

    def refusing(self, node_ids: set[str]) -> set[str]:
        """Return those nodes that have refused all that waits, if anything does: a flow there would have nothing."""
        waiting = [*self._ready, *self._plain]
        return {each for each in node_ids if waiting and all(each in item.refused_by for item in waiting)}

    def take_nowait(self, node_id: str) -> Item | None:
        """Take the next object that could go and that this node has not refused, if there is one."""
        return self._take_from(self._ready, node_id)

    async def take(
        self,
        node_id: str,
        leaving: Callable[[], bool] = lambda: False,
        patience_s: Callable[[int], float] = lambda _: 0.0,
    ) -> Item | None:
        """Take the next object for this node, waiting for one; None when everything is settled.

        Also None when the taker is `leaving`, which is asked again after each `wake`. While only plain objects wait
        the encoders are waited for, up to `patience_s` of the first one's size.
        """
        since_s = math.inf
        while not self.settled.is_set() and not leaving():
            item = None if self.paused else self.take_nowait(node_id)
            if item is not None:
                return item
            if self.paused or not self._plain:
                since_s = math.inf
                await self._wait_as(_Taker(node_id), math.inf)
                continue
            since_s = min(since_s, trio.current_time())
            left_s = since_s + patience_s(self._plain[0].size_bytes) - trio.current_time()
            if left_s <= 0 and (item := self._take_from(self._plain, node_id)) is not None:
                return item
            await self._wait_as(_Taker(node_id), left_s if left_s > 0 else math.inf)
        self.wake()  # what this taker was woken for is another's
        return None

    async def _wait_as(self, taker: _Taker, seconds: float) -> None:
        """Wait until the taker is woken, or for so long."""
        self._takers.append(taker)
        try:
            with trio.move_on_after(seconds):
                await taker.woken.wait()
        except trio.Cancelled:
            self.wake()
            raise
        finally:
            self._takers.remove(taker)

    def _wake_taker(self, item: Item) -> None:
        """Wake one who may take `item`: to wake all for each took 4 % of the time on a fast link."""
        for taker in self._takers:
            if not taker.woken.is_set() and self._is_for(item, taker.node_id):
                taker.woken.set()
                return

    async def take_plain(self, size_bytes_max: int, count_max: int) -> list[Item]:
        """Take the next objects for an encoder, waiting for one: up to so many bytes, at least one."""
        while not self._plain:
            await self._changed.wait()
        batch = [self._plain.popleft()]
        size_bytes = batch[0].size_bytes
        while self._plain and len(batch) < count_max and size_bytes + self._plain[0].size_bytes <= size_bytes_max:
            batch.append(self._plain.popleft())
            size_bytes += batch[-1].size_bytes
        return batch

    async def wait_low(self, count: int) -> None:
        """Wait until at most `count` objects wait, for encoders or flows."""
        await self._wait_until(lambda: len(self._ready) + len(self._plain) <= count)

    async def wait_ready_low(self, size_bytes: Callable[[], float], count: int) -> None:
        """Wait until less than `size_bytes`, or fewer than `count` objects, could go at once."""
        await self._wait_until(lambda: len(self._ready) < count or self.ready_bytes < size_bytes())

    async def wait_ending(self) -> None:
        """Wait until few objects wait and no more come."""
        await self._wait_until(lambda: self.is_ending)

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            watcher = _Watcher(holds)
            self._watchers.append(watcher)
            try:
                await watcher.woken.wait()
            finally:
                self._watchers.remove(watcher)

    def _note_taken(self) -> None:
        for watcher in self._watchers:
            if watcher.holds():
                watcher.woken.set()

    def _take_from(self, waiting: deque[Item], node_id: str) -> Item | None:
        for index, item in enumerate(waiting):
            if self._is_for(item, node_id):
                del waiting[index]
                self._note_taken()
                return item
        return None

    def _is_for(self, item: Item, node_id: str) -> bool:
        return node_id not in item.refused_by and not self._belongs_elsewhere(item, node_id)

    def _belongs_elsewhere(self, item: Item, node_id: str) -> bool:
        """Tell whether a large object, part of which another node has, is better left to a flow to that node."""
        return bool(item.home) and item.home not in {node_id, *item.refused_by} and self.is_expected(item.home)

    @property
    def idle(self) -> bool:
        """Whether everything that was added is settled."""
        return not self._unsettled

    def _check(self) -> None:
        if self._complete and not self._unsettled:
            self.settled.set()
            self.wake()

    def wake(self) -> None:
        """Let all who wait look again."""
        self._changed.set()
        self._changed = trio.Event()
        for taker in self._takers:
            taker.woken.set()


class Budget:
    """Bytes of bodies that may be in memory at once: `first_bytes` until it is widened, then `limit_bytes`."""

    def __init__(self, limit_bytes: int, *, first_bytes: int | None = None) -> None:
        self._widest_bytes = limit_bytes
        self._limit_bytes = limit_bytes if first_bytes is None else first_bytes
        self._used_bytes = 0
        self._changed = trio.Event()

    async def take(self, size_bytes: int) -> None:
        """Wait until `size_bytes` more fit (or nothing else is in memory)."""
        while self._used_bytes and self._used_bytes + size_bytes > self._limit_bytes:
            await self._changed.wait()
        self._used_bytes += size_bytes

    def widen(self) -> None:
        """Let all of the limit be used from here on."""
        if self._limit_bytes < self._widest_bytes:
            self._limit_bytes = self._widest_bytes
            self.give_back(0)

    def take_over_limit(self, size_bytes: int) -> None:
        """Take without waiting: for what must move on before anything can be let go."""
        self._used_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Note that so many bytes were let go."""
        self._used_bytes -= size_bytes
        self._changed.set()
        self._changed = trio.Event()
