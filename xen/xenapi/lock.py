"""The cluster's lock at a pool, in the pool's `other_config`, by the rules of `xen.lease`.

`pool.add_to_other_config` fails with MAP_DUPLICATE_KEY when the key is there: that is the test and set. Refuses to do:
waiting for long; who holds it is said instead.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from transfer import log
from transfer.errors import BusyError, FascicleError
from xen import lease
from xen.xenapi import errors
from xen.xenapi.session import PoolSession

logger = log.get_logger()
TAKEN: Final = "MAP_DUPLICATE_KEY"
LOOK_EVERY_S: Final = 0.5


class PoolLock:
    """A lock that is held."""

    def __init__(self, session: PoolSession, pool: str, prefix: str, generation: int, owner: str) -> None:
        self._session, self._pool, self._prefix = session, pool, prefix
        self._generation, self._owner = generation, owner
        self._mutex = threading.Lock()
        self._beat = 0
        self._beat_s = 0.0
        self._released = False

    def check(self) -> None:
        """Return if the lock is still ours; says so at the pool, so that nobody takes us for dead.

        Raises:
            BusyError: another run has overtaken this one.
        """
        with self._mutex:
            if self._released or time.monotonic() - self._beat_s < lease.BEAT_S:
                return
            self._confirm()
            self._write_beat()

    def release(self) -> None:
        """Give the lock back. One that cannot be given back is overtaken later."""
        with self._mutex:
            self._released = True
            try:
                for key in (
                    lease.beat_key(self._prefix, self._generation),
                    lease.key_of(self._prefix, self._generation),
                ):
                    self._session.call("pool.remove_from_other_config", self._pool, key)
            except FascicleError as error:
                logger.warning("pool_lock_not_released", reason=error.message)

    def begin(self) -> None:
        """Write the first beat, and remove what earlier owners left."""
        with self._mutex:
            self._write_beat()
            for key in lease.below(self._prefix, _entries(self._session, self._pool), self._generation):
                self._session.call("pool.remove_from_other_config", self._pool, key)

    def _confirm(self) -> None:
        now = lease.held(self._prefix, _entries(self._session, self._pool))
        if now is None or (now.generation, now.owner) != (self._generation, self._owner):
            whose = now.owner if now is not None else "nobody"
            raise BusyError(f"the pool's lock was lost to {whose}; this run does nothing more")

    def _write_beat(self) -> None:
        self._beat += 1
        key = lease.beat_key(self._prefix, self._generation)
        self._session.call("pool.remove_from_other_config", self._pool, key)
        _add(self._session, self._pool, key, str(self._beat))
        self._beat_s = time.monotonic()


@contextmanager
def hold_lock(
    session: PoolSession,
    cluster: str,
    owner: str,
    wait_s: float,
    *,
    lease_s: float = lease.LEASE_S,
    has_ended: Callable[[str, str], bool] = lease.has_ended,
) -> Iterator[PoolLock]:
    """Hold the cluster's lock at the session's pool.

    Raises:
        BusyError: somebody else has it, still after `wait_s`.
    """
    pool = str(session.call("pool.get_all")[0])
    prefix = f"fascicle-lock-{cluster}"
    deadline_s = time.monotonic() + wait_s
    seen: lease.Held | None = None
    since_s = time.monotonic()
    while True:
        now = lease.held(prefix, _entries(session, pool))
        if now != seen:
            seen, since_s = now, time.monotonic()
        if now is None or has_ended(now.owner, owner) or time.monotonic() - since_s > lease_s:
            lock = _take(session, pool, prefix, now, owner)
            if lock is not None:
                break
        elif time.monotonic() > deadline_s:
            raise BusyError(
                f"another run is at work at this pool: {now.owner}; wait for it, or say `watch.lock_wait_s`"
            )
        time.sleep(LOOK_EVERY_S)
    try:
        yield lock
    finally:
        lock.release()


def _take(session: PoolSession, pool: str, prefix: str, before: lease.Held | None, owner: str) -> PoolLock | None:
    """Try for the next generation; None if somebody was faster, or the former owner was not the one that was judged."""
    generation = before.generation + 1 if before is not None else 1
    if not _add(session, pool, lease.key_of(prefix, generation), owner):
        return None
    lock = PoolLock(session, pool, prefix, generation, owner)
    entries = _entries(session, pool)
    if before is not None and entries.get(lease.key_of(prefix, before.generation)) not in (before.owner, None):
        lock.release()
        return None
    now = lease.held(prefix, entries)
    if now is None or now.generation != generation:
        lock.release()
        return None
    if before is not None:
        logger.warning("pool_lock_overtaken", owner=before.owner)
    lock.begin()
    return lock


def _entries(session: PoolSession, pool: str) -> dict[str, str]:
    found: dict[str, str] = session.call("pool.get_other_config", pool)
    return found


def _add(session: PoolSession, pool: str, key: str, value: str) -> bool:
    """Write a key that is not there; False if it is."""
    try:
        session.call("pool.add_to_other_config", pool, key, value)
    except FascicleError as error:
        if errors.name_of(error) != TAKEN:
            raise
        return False
    return True
