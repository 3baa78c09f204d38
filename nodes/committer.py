"""The committer: gathers the objects that flows have received, and makes them durable in groups.

A group is what came within a moment of its first object, or half of what one flow may have in memory: each flush, each
signature and each request to the gateway serves all of it. Two workers take groups in turn: one writes its group's
files while the other waits for the disk. Refuses to do: deciding what is stored, answering peers.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from nodes.incoming import Incoming
from nodes.objectfile import Record
from nodes.store import Store
from transfer.errors import FascicleError

WORKERS: Final = 2
GROUP_OBJECTS_MAX: Final = 512
GROUP_BYTES_MAX: Final = 16 << 20
ENOUGH_BYTES: Final = 8 << 20  # half of a lone flow's window: while it becomes durable the other half may come
GATHER_S: Final = 0.2

Outcome = Record | FascicleError
OnDone = Callable[[Outcome], None]


class Committer:
    """Takes uploads whose last byte has come; tells each one's owner what became of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Unbounded, but never long: what is in it is on credit (nodes.credit), and flows bound their open objects.
        self._waiting: deque[tuple[Incoming, OnDone]] = deque()
        self._waiting_bytes = 0
        self._some = trio.Event()
        self._enough = trio.Event()
        self._gathering = trio.Lock()  # or the workers would share what could be one group

    def submit(self, incoming: Incoming, on_done: OnDone) -> None:
        """Queue an upload; `on_done` is called once, in the trio thread, and must not block or raise."""
        self._waiting.append((incoming, on_done))
        self._waiting_bytes += incoming.stored_bytes
        self._some.set()
        if self._waiting_bytes >= ENOUGH_BYTES or len(self._waiting) >= GROUP_OBJECTS_MAX:
            self._enough.set()

    def hurry(self) -> None:
        """Close the group that gathers: whoever sends has nothing more to add."""
        if self._waiting:
            self._enough.set()

    async def commit(self, incoming: Incoming) -> Record:
        """Queue an upload and wait until it is durable.

        Raises:
            FascicleError: what became of it instead.
        """
        done = trio.Event()
        outcomes: list[Outcome] = []

        def on_done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            done.set()

        self.submit(incoming, on_done)
        await done.wait()
        if isinstance(outcomes[0], FascicleError):
            raise outcomes[0]
        return outcomes[0]

    async def serve(self) -> None:
        """Make groups durable until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            async with self._gathering:
                group = await self._gather()
            uploads = [incoming for incoming, _ in group]
            outcomes = await trio.to_thread.run_sync(self._store.commit, uploads)
            for (_, on_done), outcome in zip(group, outcomes, strict=True):
                on_done(outcome)

    async def _gather(self) -> list[tuple[Incoming, OnDone]]:
        """Wait for the next group and take it."""
        await self._some.wait()
        with trio.move_on_after(GATHER_S):
            await self._enough.wait()
        group: list[tuple[Incoming, OnDone]] = []
        size_bytes = 0
        while self._waiting and size_bytes < GROUP_BYTES_MAX and len(group) < GROUP_OBJECTS_MAX:
            group.append(self._waiting.popleft())
            size_bytes += group[-1][0].stored_bytes
        self._waiting_bytes -= size_bytes
        if not self._waiting:
            self._some = trio.Event()
        if self._waiting_bytes < ENOUGH_BYTES:
            self._enough = trio.Event()
        return group
