"""Plans, and carries the plan out, again and again until nothing is left to do.

    lock -> observe pool and gateway -> plan -> steps -> observe ... -> the plan is empty

Machines go through their steps side by side (`lanes`), phase after phase. A step that fails holds up its own machine
only; then everything is observed and planned anew, because the answer that was lost may have been a yes. What fails
`TRIES` rounds in a row, at the same kind of step for the same kind of reason, is raised. Refuses to do:
deciding (`xen.plan`), the steps (`xen.steps`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Final

import msgspec
import trio

from transfer import log
from transfer.errors import FascicleError
from xen.actions import Action, Plan
from xen.backend import Backend, Lock
from xen.cloud import Cloud, Node
from xen.metrics import Metrics
from xen.observed import Pool
from xen.plan import make_plan
from xen.poolfile import PoolFile
from xen.steps import Steps
from xen.wanted import Wanted

TRIES: Final = 3
PAUSE_S: Final = 1.0
Say = Callable[[str], None]
logger = log.get_logger()


class View(msgspec.Struct, frozen=True):
    """What was seen at one moment."""

    pool: Pool
    nodes: Mapping[str, Node]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did: steps by kind, rounds of planning, and what it could not do."""

    steps: dict[str, int]
    rounds: int
    notes: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True):
    """A step that was not done, and why; the machine's further steps were not tried."""

    action: Action
    error: FascicleError


async def observe(backend: Backend, cloud: Cloud) -> View:
    """Return what there is now at the pool and at the gateway.

    Raises:
        FascicleError: one of them cannot be asked.
    """
    pool = await trio.to_thread.run_sync(backend.observe)
    return View(pool, await cloud.nodes())


class Run:
    """One run at a pool whose lock is held. Without `waits` a node that is not drained yet is left for another time."""

    def __init__(
        self,
        file: PoolFile,
        backend: Backend,
        cloud: Cloud,
        lock: Lock,
        say: Say,
        *,
        waits: bool = True,
        metrics: Metrics | None = None,
    ) -> None:
        self._steps = Steps(file, backend, cloud, lock, waits=waits)
        self._backend, self._cloud, self._say = backend, cloud, say
        self._lanes = trio.CapacityLimiter(file.watch.lanes)
        self._metrics = metrics or Metrics()
        self._done: Counter[str] = Counter()
        self._failures: Counter[tuple[str, str]] = Counter()

    async def until_as(self, wanted: Wanted, *, upgrade: bool = False) -> Report:
        """Go on until everything is as wanted.

        Raises:
            FascicleError: what stands in the way and does not pass.
        """
        rounds = 0
        while True:
            view = await observe(self._backend, self._cloud)
            plan = self._plan(wanted, view, upgrade=upgrade, partial=False)
            if not plan.actions:
                return Report(steps=dict(self._done), rounds=rounds, notes=plan.notes)
            rounds += 1
            failed = await self.carry_out(plan)
            self._judge(failed)
            if failed:
                await trio.sleep(PAUSE_S)

    async def once(self, wanted: Wanted, view: View) -> Sequence[FascicleError]:
        """Do what can be done now, also where there is too little room for all; return what failed (reconciler)."""
        plan = self._plan(wanted, view, upgrade=False, partial=True)
        return [each.error for each in (await self.carry_out(plan)).values()]

    async def carry_out(self, plan: Plan) -> dict[str, Failed]:
        """Carry a plan out; return what failed, by machine."""
        failed: dict[str, Failed] = {}
        for _, phase in groupby(plan.actions, key=lambda each: each.phase):
            chains: dict[str, list[Action]] = {}
            for action in phase:
                chains.setdefault(action.name, []).append(action)
            async with trio.open_nursery() as nursery:
                for name, chain in chains.items():
                    if name not in failed:
                        nursery.start_soon(self._follow, chain, failed)
        return failed

    def _plan(self, wanted: Wanted, view: View, *, upgrade: bool, partial: bool) -> Plan:
        plan = make_plan(wanted, view.pool, view.nodes, upgrade=upgrade, partial=partial)
        self._metrics.saw(wanted, view.pool, plan)
        for line in plan.lines():
            self._say(line)
        return plan

    async def _follow(self, chain: Sequence[Action], failed: dict[str, Failed]) -> None:
        async with self._lanes:
            for action in chain:
                try:
                    await self._steps.do(action)
                except FascicleError as error:
                    logger.warning("pool_step_failed", machine=action.name, code=error.code, reason=error.message)
                    self._say(f"{action.name}: {error.message}")
                    self._metrics.stepped(action, error.code)
                    failed[action.name] = Failed(action, error)
                    return
                self._metrics.stepped(action, "done")
                self._done[type(action).__name__.lower()] += 1
                self._say(f"done: {action.sentence()}")

    def _judge(self, failed: Mapping[str, Failed]) -> None:
        """Raise what does not pass: the same error at the same kind of step, round after round."""
        kinds = {(type(each.action).__name__, each.error.code): each.error for each in failed.values()}
        self._failures = Counter({kind: self._failures[kind] + 1 for kind in kinds})
        for kind, error in kinds.items():
            if self._failures[kind] >= TRIES:
                raise error
