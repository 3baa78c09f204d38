"""Growth carried out: the number that `xen.growth` finds is written into the pool file, and the round makes it true.

The file is the truth: a run that is killed right after the write has lost nothing, for whoever reads the file next
makes the nodes, and a person's `plan` lists them. Whatever keeps the number from being written is said, and leaves the
round its other work. What needs somebody is warned of once, not in each round. Refuses to do: deciding (`xen.growth`).
"""

from pathlib import Path

import trio

from transfer import log
from transfer.errors import ConflictError, FascicleError
from xen import countline, growth, poolfile
from xen.apply import Say, View
from xen.backend import Lock
from xen.metrics import Metrics
from xen.poolfile import PoolFile

logger = log.get_logger()


class Grower:
    """Growth of one pool file, round after round. It remembers only what it warned of last."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path, self._metrics = path, metrics
        self._warned = ""

    async def grow(self, file: PoolFile, view: View, lock: Lock, say: Say) -> PoolFile:
        """Return the file that this round is to make true: as it is, or with more nodes, which is written then.

        Raises:
            BusyError: the lock is lost.
            SettingsError: the pool has no such template, storage or network.
        """
        wanted, limits = file.wanted(), file.growth
        self._metrics.saw_room(growth.room_of(wanted, view.pool, view.nodes).free_ratio)
        verdict = growth.judge(
            wanted, view.pool, view.nodes, count_max=limits.count_max, free_share_min=limits.free_share_min
        )
        if verdict.outcome != growth.Outcome.GROWN:
            self._metrics.grew(verdict.outcome, 0)
            self._warn(verdict.line if verdict.outcome in growth.NEEDS_SOMEBODY else "", verdict.outcome, say)
            return file
        await trio.to_thread.run_sync(lock.check)
        try:
            grown = await trio.to_thread.run_sync(self._write, file, verdict.count)
        except FascicleError as error:
            self._metrics.grew(error.code, 0)
            self._warn(f"{verdict.line}, but {error.message}", error.code, say)
            return file
        self._metrics.grew(verdict.outcome, verdict.count - wanted.count)
        logger.info("pool_grown", before=wanted.count, count=verdict.count, count_max=limits.count_max)
        say(verdict.line)
        self._warn(verdict.short, growth.Outcome.NO_ROOM, say)
        return grown

    def _write(self, file: PoolFile, count: int) -> PoolFile:
        """Write the number, if the file still says what this round goes by.

        Raises:
            FascicleError: it does not, or cannot be written.
        """
        change = countline.look(self._path, count)
        said = countline.count_in(change.before, self._path)
        if said != file.nodes.count:
            raise ConflictError(
                f"{self._path}: says {said} nodes, and {file.nodes.count} are in force; somebody has just changed it, "
                "or the environment says otherwise (FASCICLE_NODES__COUNT)"
            )
        grown = poolfile.with_count(file, count, self._path)
        countline.write(change)
        return grown

    def _warn(self, line: str, code: str, say: Say) -> None:
        if line:
            say(line)
            if line != self._warned:
                logger.warning("pool_cannot_grow", code=code, reason=line)
        self._warned = line
