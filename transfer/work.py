"""The work of one transfer: which objects are still to go, shared by all flows by stealing.

A flow takes the next object when it has credit, so a slow node takes few and a fast one many; what a broken flow had
under way goes back to the front. Refuses to do: I/O, deciding what a refusal means (`transfer.refusals`).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from transfer.errors import FascicleError
from transfer.inspection import SourceFile


@dataclass(slots=True, eq=False)
class Item:
    """One object of the transfer, all files that are it, and its bytes while they are in memory."""

    object_id: str
    size_bytes: int
    sources: list[SourceFile]
    body: bytes | None
    refused_by: dict[str, FascicleError] = field(default_factory=dict)
    refusals: int = 0
    raw_only: bool = False
    furthest_block: int = 0  # of a large object: how far any flow has come with it


class Work:
    """The objects that are wanted and not settled yet."""

    def __init__(self) -> None:
        self._ready: deque[Item] = deque()
        self._unsettled = 0
        self._complete = False
        self.paused = False  # for the sake of a more urgent transfer
        self._changed = trio.Event()
        self._taken = trio.Event()
        self.settled = trio.Event()  # everything is, and nothing more comes

    def add(self, item: Item) -> None:
        """Take one more object."""
        self._unsettled += 1
        self._ready.append(item)
        self.wake()

    def no_more(self) -> None:
        """Say that nothing more is added."""
        self._complete = True
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

    def take_nowait(self, node_id: str) -> Item | None:
        """Take the next object that this node has not refused, if there is one."""
        for index, item in enumerate(self._ready):
            if node_id not in item.refused_by:
                del self._ready[index]
                self._taken.set()
                return item
        return None

    async def take(self, node_id: str, leaving: Callable[[], bool] = lambda: False) -> Item | None:
        """Take the next object for this node, waiting for one; None when everything is settled.

        Also None when the taker is `leaving`, which is asked again after each `wake`.
        """
        while not self.settled.is_set() and not leaving():
            item = None if self.paused else self.take_nowait(node_id)
            if item is not None:
                return item
            await self._changed.wait()
        return None

    async def wait_low(self, count: int) -> None:
        """Wait until at most `count` objects wait to be taken."""
        while len(self._ready) > count:
            self._taken = trio.Event()
            await self._taken.wait()

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


class Budget:
    """Bytes of bodies that may be in memory at once."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._changed = trio.Event()

    async def take(self, size_bytes: int) -> None:
        """Wait until `size_bytes` more fit (or nothing else is in memory)."""
        while self._used_bytes and self._used_bytes + size_bytes > self._limit_bytes:
            await self._changed.wait()
        self._used_bytes += size_bytes

    def take_over_limit(self, size_bytes: int) -> None:
        """Take without waiting: for what must move on before anything can be let go."""
        self._used_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Note that so many bytes were let go."""
        self._used_bytes -= size_bytes
        self._changed.set()
        self._changed = trio.Event()
