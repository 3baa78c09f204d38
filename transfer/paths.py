"""The path to one gateway as this sender knows it: what worked last time, what it takes now, who has parts of what.

Read before a transfer and written after it; neither is ever a reason for a transfer to fail. Refuses to do: the file's
form (`transfer.control.path_memory`, `part_memory`), deciding.
"""

import time
from pathlib import Path
from typing import Final

import trio

from transfer.control import flows as control
from transfer.control import part_memory, path_memory
from transfer.control.part_memory import Part
from transfer.control.path_memory import PathFacts
from transfer.errors import FascicleError
from transfer.link import Link
from transfer.log import get_logger

log = get_logger()
WORTH_S: Final = 2.0  # a transfer that took less has learnt nothing about flows
PARTS_NAME: Final = "parts.json"


class KnownPath:
    """What is known of a path; `file` None: nothing is remembered."""

    def __init__(self, file: Path | None, gateway: str, congestion: str | None) -> None:
        self._file = file
        self._key = f"{gateway} {congestion or 'default'}"
        self._facts: PathFacts | None = None
        self.homes: dict[str, str] = {}  # of large objects that did not come to their end: the node with a part
        self.link = Link()  # one for the whole transfer: the chooser and the encoders look at it too

    @property
    def flows(self) -> int | None:
        """With how many flows to begin; None: nothing is known."""
        return self._facts.flows if self._facts else None

    async def recall(self) -> None:
        """Read what is remembered."""
        if self._file is None:
            return
        memory = await trio.to_thread.run_sync(path_memory.load, self._file)
        self._facts = path_memory.recall(memory, self._key, time.time())
        if self._facts is not None:
            self.link.recall(self._facts.goodput_bytes_s)
        parts = await trio.to_thread.run_sync(part_memory.load, self._file.with_name(PARTS_NAME))
        self.homes.update(part_memory.homes(parts, time.time()))

    async def remember_part(self, object_id: str, node_id: str) -> None:
        """Write that a node is getting a large object."""
        if self._file is None:
            return
        part = Part(node_id=node_id, seen_at_s=time.time())
        try:
            await trio.to_thread.run_sync(part_memory.store, self._file.with_name(PARTS_NAME), object_id, part)
        except (FascicleError, OSError) as error:
            log.warning("part_not_remembered", object_id=object_id, reason=str(error))

    async def remember(self, state: control.State, seconds: float) -> None:
        """Write what this transfer found."""
        if self._file is None or seconds < WORTH_S or not state.best_goodput_bytes_s:
            return
        facts = PathFacts(
            flows=state.best,
            goodput_bytes_s=self.link.bytes_s,
            rtt_s=state.rtt_s_min if state.rtt_s_min < float("inf") else 0.0,
            seen_at_s=time.time(),
        )
        try:
            await trio.to_thread.run_sync(path_memory.store, self._file, self._key, facts)
        except (FascicleError, OSError) as error:
            log.warning("path_not_remembered", reason=str(error))
