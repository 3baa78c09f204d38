"""The reconciler: keeps a pool as its file says, for as long as it runs.

Every `every_s` it looks, and does what can be done: makes what is missing, starts what stopped, replaces what is gone
after the grace time, drains what is too much, removes what is drained; where the file lets it, makes more when space is
short (`xen.growing`). The lock is held for each round only, so that a person's `apply` gets its turn; the file is
read anew each time. Whatever fails is logged and tried in the next round.
Grace: silence as the gateway counts it, or, where the gateway does not know (it was restarted), as long as this process
has seen it. Refuses to do: deciding (`xen.plan`); ending by itself for a reason that may pass.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Never

import msgspec
import trio

from transfer import log
from transfer.errors import FascicleError, SettingsError, UnauthorisedError
from xen.apply import Run, Say, observe
from xen.backend import Backend
from xen.cloud import Cloud, Node
from xen.growing import Grower
from xen.holding import open_lock
from xen.metrics import Metrics
from xen.poolfile import PoolFile

logger = log.get_logger()


class Patient:
    """A gateway (`Cloud`) whose forgotten silences are counted here."""

    def __init__(self, cloud: Cloud, clock: Callable[[], float]) -> None:
        self._cloud = cloud
        self._clock = clock
        self._since: dict[str, float] = {}

    async def nodes(self) -> Mapping[str, Node]:
        """Return every node, with how long at least it has been silent."""
        seen = await self._cloud.nodes()
        now_s = self._clock()
        self._since = {name: self._since.get(name, now_s) for name, node in seen.items() if node.state != "live"}
        return {name: self._counted(node, now_s) for name, node in seen.items()}

    async def invite(self, name: str, hosts: Sequence[str]) -> str:
        """See `Cloud`."""
        return await self._cloud.invite(name, hosts)

    async def drain(self, name: str) -> None:
        """See `Cloud`."""
        await self._cloud.drain(name)

    async def needed_objects(self, name: str) -> int:
        """See `Cloud`."""
        return await self._cloud.needed_objects(name)

    async def revoke(self, name: str) -> None:
        """See `Cloud`."""
        await self._cloud.revoke(name)

    async def tell_domain(self, name: str, domain: str) -> None:
        """See `Cloud`."""
        await self._cloud.tell_domain(name, domain)

    def _counted(self, node: Node, now_s: float) -> Node:
        if node.state == "live":
            return node
        silent_s = max(node.silent_s or 0.0, now_s - self._since[node.name])
        return msgspec.structs.replace(node, silent_s=silent_s)


class Changes:
    """Says a line only when the round before did not say it: what stays as it is needs no word every few seconds."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._before: set[str] = set()
        self._now: set[str] = set()

    def __call__(self, line: str) -> None:
        """Say the line, if it is news."""
        if line not in self._before:
            self._say(line)
        self._now.add(line)

    def next_round(self) -> None:
        """Begin another round."""
        self._before, self._now = self._now, set()


async def reconcile(
    read: Callable[[], PoolFile],
    path: Path,
    backend: Backend,
    cloud: Cloud,
    *,
    owner: str,
    say: Say,
    metrics: Metrics,
) -> Never:
    """Keep the pool as the file at `path` says, which `read` reads; never returns."""
    patient = Patient(cloud, trio.current_time)
    grower = Grower(path, metrics)
    changes = Changes(say)
    file = read()
    while True:
        outcome = "done"
        try:
            file = read()
            await round_once(file, backend, patient, owner=owner, say=changes, grower=grower, metrics=metrics)
        except (SettingsError, UnauthorisedError) as error:
            outcome = error.code
            logger.error("pool_needs_somebody", code=error.code, reason=error.message)
        except FascicleError as error:
            outcome = error.code
            logger.warning("pool_round_failed", code=error.code, reason=error.message)
        metrics.rounded(outcome)
        changes.next_round()
        await trio.sleep(file.watch.every_s)


async def round_once(
    file: PoolFile,
    backend: Backend,
    cloud: Cloud,
    *,
    owner: str,
    say: Say,
    grower: Grower,
    metrics: Metrics | None = None,
) -> None:
    """Look once, and do what can be done; where space is short, with as many nodes more as the file allows.

    Raises:
        FascicleError: the pool or the gateway cannot be asked, or somebody else is at work.
    """
    async with open_lock(backend, owner, file.watch.lock_wait_s) as lock:
        view = await observe(backend, cloud)
        file = await grower.grow(file, view, lock, say)
        run = Run(file, backend, cloud, lock, say, waits=False, metrics=metrics)
        for error in await run.once(file.wanted(), view):
            logger.warning("pool_machine_failed", code=error.code, reason=error.message)
