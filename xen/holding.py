"""The pool's lock as a context of trio: taken and given back in threads, and confirmed again and again in between.

When the lock turns out to be lost, everything under it is cancelled and the loss raised. Refuses to do: how a pool
keeps a lock (the back ends).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from transfer.errors import FascicleError
from xen.backend import Backend, Lock

CONFIRM_EVERY_S: Final = 5.0


@asynccontextmanager
async def open_lock(backend: Backend, owner: str, wait_s: float) -> AsyncIterator[Lock]:
    """Hold the lock inside the context.

    Raises:
        BusyError: somebody else has it, or has taken it over.
    """
    holding = backend.open_lock(owner, wait_s)
    lock = await trio.to_thread.run_sync(holding.__enter__)
    ended_by: list[FascicleError] = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_confirm, lock, nursery.cancel_scope, ended_by)
            try:
                yield lock
            except FascicleError as error:
                ended_by.append(error)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(holding.__exit__, None, None, None)
    if ended_by:
        raise ended_by[0]


async def _confirm(lock: Lock, scope: trio.CancelScope, ended_by: list[FascicleError]) -> None:
    while True:
        await trio.sleep(CONFIRM_EVERY_S)
        try:
            await trio.to_thread.run_sync(lock.check)
        except FascicleError as error:
            if error.code == "busy":
                ended_by.append(error)
                scope.cancel()
                return
