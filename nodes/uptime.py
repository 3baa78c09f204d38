"""A node's running time: seconds that it was up in all its lives on this disk, by the monotonic clock.

What is put aside waits for its end in this time, so that a clock that jumps, or a machine that was off for a month,
ends nothing early. It is kept in `uptime` now and then; a kill loses what was not kept, and what waits then waits a
little longer. Refuses to do: the time of day.
"""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final, Never

import msgspec
import trio

from transfer import disk
from transfer.durable import write_file_durably
from transfer.errors import FascicleError
from transfer.log import get_logger
from transfer.protocol.messages import UNREADABLE

SAVE_S: Final = 60.0
log = get_logger()


class Uptime:
    """The running time that is kept at `path`; thread-safe."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Go on from what is kept; from zero where nothing that can be read is, which makes what waits wait longer."""
        self._path = path
        self._clock = clock
        self._before_s = self._load()
        self._began_s = clock()
        self._saving = Lock()

    def now_s(self) -> int:
        """Return the whole seconds of running time so far."""
        return self._before_s + int(self._clock() - self._began_s)

    def save(self) -> None:
        """Keep it; blocks.

        Raises:
            StorageError, FullError: it cannot be written; what was kept before stays.
        """
        with self._saving:
            write_file_durably(self._path, msgspec.json.encode(self.now_s()))

    def _load(self) -> int:
        try:
            if not disk.exists(str(self._path)):
                return 0
            return max(0, msgspec.json.decode(self._path.read_bytes(), type=int))
        except (OSError, FascicleError, *UNREADABLE) as error:
            log.warning("uptime_begins_anew", reason=str(error))
            return 0


async def keep_uptime(uptime: Uptime) -> Never:
    """Keep it for ever; a disk that fails or is full now is asked again later."""
    while True:
        try:
            await trio.to_thread.run_sync(uptime.save)
        except FascicleError as error:
            log.warning("uptime_not_kept", code=error.code, reason=error.message)
        await trio.sleep(SAVE_S)
