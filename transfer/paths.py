"""The path to one gateway as this sender knows it: what worked last time, and what the link takes now.

Read before a transfer and written after it; neither is ever a reason for a transfer to fail. Refuses to do: the file's
form (`transfer.control.path_memory`), deciding.
"""

import time
from pathlib import Path
from typing import Final

import trio

from transfer.control import flows as control
from transfer.control import path_memory
from transfer.control.path_memory import PathFacts
from transfer.errors import FascicleError
from transfer.link import Link
from transfer.log import get_logger

log = get_logger()
FLOWS_FIRST: Final = 4  # until it is known what the link takes
WORTH_S: Final = 2.0  # a transfer that took less has learnt nothing about flows


class KnownPath:
    """What is known of a path; `file` None: nothing is remembered."""

    def __init__(self, file: Path | None, gateway: str, congestion: str | None) -> None:
        self._file = file
        self._key = f"{gateway} {congestion or 'default'}"
        self._facts: PathFacts | None = None
        self.link = Link()  # one for the whole transfer: the chooser and the encoders look at it too

    @property
    def flows(self) -> int:
        """With how many flows to begin."""
        return self._facts.flows if self._facts else FLOWS_FIRST

    async def recall(self) -> None:
        """Read what is remembered."""
        if self._file is None:
            return
        memory = await trio.to_thread.run_sync(path_memory.load, self._file)
        self._facts = path_memory.recall(memory, self._key, time.time())
        if self._facts is not None:
            self.link.recall(self._facts.goodput_bytes_s)

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
