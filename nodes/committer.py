"""The committer: gathers the objects that flows have received, and makes them durable in groups.

While one group is being flushed the next one gathers, so the busier the node, the larger the group that one flush
serves. Two workers: one writes its group's files while the other waits for the disk. Refuses to do: deciding what is
stored, answering peers.
"""

import math
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
QUIET_S: Final = 0.005
GATHER_S_MAX: Final = 0.05

Outcome = Record | FascicleError
OnDone = Callable[[Outcome], None]


class Committer:
    """Takes uploads whose last byte has come; tells each one's owner what became of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Unbounded, but never long: what is in it is on credit (nodes.credit), and flows bound their open objects.
        self._send, self._receive = trio.open_memory_channel[tuple[Incoming, OnDone]](math.inf)

    def submit(self, incoming: Incoming, on_done: OnDone) -> None:
        """Queue an upload; `on_done` is called once, in the trio thread, and must not block or raise."""
        self._send.send_nowait((incoming, on_done))

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
        async for first in self._receive:
            group = await self._gather(first)
            uploads = [incoming for incoming, _ in group]
            outcomes = await trio.to_thread.run_sync(self._store.commit, uploads)
            for (_, on_done), outcome in zip(group, outcomes, strict=True):
                on_done(outcome)

    async def _gather(self, first: tuple[Incoming, OnDone]) -> list[tuple[Incoming, OnDone]]:
        """Return what comes close behind `first`: a group ends when nothing came for a moment, or it is large."""
        group = [first]
        size_bytes = first[0].stored_bytes
        ends_s = trio.current_time() + GATHER_S_MAX
        came = True
        while came and trio.current_time() < ends_s:
            await trio.sleep(QUIET_S)
            came = False
            while size_bytes < GROUP_BYTES_MAX and len(group) < GROUP_OBJECTS_MAX:
                try:
                    item = self._receive.receive_nowait()
                except trio.WouldBlock:
                    break
                group.append(item)
                size_bytes += item[0].stored_bytes
                came = True
        return group
