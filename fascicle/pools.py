"""`fascicle xen`: plan, apply, reconcile, status, scale, drain, snapshot and destroy at one pool.

Prints the plan before it is carried out, and each step when it is done, on standard error with `--json`. Refuses to do:
what they say (`xen`).
"""

import argparse
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from transfer.errors import FullError, SettingsError
from xen import countline, growth, lease, maintenance, overview, poolfile, reconcile
from xen.actions import Plan
from xen.apply import Report, Run, View, observe
from xen.backend import Backend, Lock
from xen.cloud import Cloud
from xen.gatewaylink import open_cloud
from xen.holding import open_lock
from xen.metrics import Metrics, open_listener
from xen.opening import open_backend
from xen.plan import make_plan
from xen.poolfile import PoolFile

ENDED: Final = 143  # as shells report a process that SIGTERM ended


def run(arguments: argparse.Namespace) -> int:
    """Run the task that `arguments` name; returns 0, or 1 where not all that was asked is done."""
    file = poolfile.load(arguments.pool)
    if arguments.task == "scale":
        file = poolfile.with_count(file, arguments.count, arguments.pool)
    with open_backend(file, arguments.pool) as backend:
        return trio.run(_run, file, backend, arguments)


class At:
    """Where a task is carried out: the file, the pool, the gateway, and how it speaks."""

    def __init__(self, file: PoolFile, backend: Backend, cloud: Cloud, arguments: argparse.Namespace) -> None:
        self.file, self.backend, self.cloud, self.arguments = file, backend, cloud, arguments
        self.wanted = file.wanted()

    def say(self, line: str) -> None:
        """Print a line of progress."""
        print(line, file=sys.stderr if self.arguments.json else sys.stdout, flush=True)

    def answer(self, value: Any, *lines: str) -> None:
        """Print the end's word: one object, or lines."""
        if self.arguments.json:
            print(msgspec.json.encode(value).decode(), flush=True)
        else:
            for line in lines:
                print(line, flush=True)

    @asynccontextmanager
    async def held(self) -> Any:
        """Hold the pool's lock."""
        async with open_lock(self.backend, lease.this_process(), self.file.watch.lock_wait_s) as lock:
            yield lock

    def run(self, lock: Lock) -> Run:
        """Return a run under the lock."""
        return Run(self.file, self.backend, self.cloud, lock, self.say)

    async def read_again(self) -> None:
        """Go by the file as it is now."""
        self.file = await trio.to_thread.run_sync(poolfile.load, self.arguments.pool)
        self.wanted = self.file.wanted()

    async def look(self) -> View:
        """Return what there is now."""
        return await observe(self.backend, self.cloud)


async def _run(file: PoolFile, backend: Backend, arguments: argparse.Namespace) -> int:
    administrator = poolfile.beside(arguments.pool, file.administrator)
    code = ENDED
    async with open_cloud(administrator) as cloud, trio.open_nursery() as nursery:
        nursery.start_soon(_end_at_sigterm, nursery.cancel_scope)
        code = await TASKS[arguments.task](At(file, backend, cloud, arguments))
        nursery.cancel_scope.cancel()
    return code


async def _end_at_sigterm(scope: trio.CancelScope) -> None:
    """End as Ctrl-C does: the step that is under way is finished, the lock given back, the session logged out."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await anext(aiter(signals))
        scope.cancel()


async def _plan(at: At) -> int:
    view = await at.look()
    plan = make_plan(at.wanted, view.pool, view.nodes, upgrade=at.arguments.upgrade)
    at.answer(
        {"steps": [each.sentence() for each in plan.actions], "notes": plan.notes},
        *(plan.lines() or ["nothing is to be done"]),
    )
    return 0


async def _apply(at: At) -> int:
    async with at.held() as lock:
        if at.arguments.task == "apply":
            await at.read_again()  # the reconciler may have written more nodes into it while the lock was waited for
        report = await at.run(lock).until_as(at.wanted, upgrade=getattr(at.arguments, "upgrade", False))
    _answer_report(at, report)
    return 0


async def _scale(at: At) -> int:
    """Change the file only when the number is known to fit, and to count from then on."""
    change = await trio.to_thread.run_sync(countline.look, at.arguments.pool, at.arguments.count)
    countline.check_in_force(change, at.arguments.count)
    view = await at.look()
    make_plan(at.wanted, view.pool, view.nodes)
    await trio.to_thread.run_sync(countline.write, change)
    return await _apply(at)


async def _reconcile(at: At) -> int:
    measured = Metrics()
    with open_listener(measured, at.file.watch.metrics_listen):
        await reconcile.reconcile(
            lambda: poolfile.load(at.arguments.pool),
            at.arguments.pool,
            at.backend,
            at.cloud,
            owner=lease.this_process(),
            say=at.say,
            metrics=measured,
        )


async def _status(at: At) -> int:
    view = await at.look()
    shown = overview.table(view.pool, view.nodes)
    limits = at.file.growth
    grows = growth.judge(
        at.wanted, view.pool, view.nodes, count_max=limits.count_max, free_share_min=limits.free_share_min
    )
    plan, short = Plan(), ""
    try:
        plan = make_plan(at.wanted, view.pool, view.nodes)
    except FullError as error:
        short = error.message
    notes = [*plan.notes, *(line for line in (short, grows.line) if line)]
    todo = f"{len(plan.actions)} steps to do; `fascicle xen plan` lists them" if plan.actions else "as wanted"
    free_ratio = growth.room_of(at.wanted, view.pool, view.nodes).free_ratio
    room = overview.room_line(free_ratio, count_max=limits.count_max, free_share_min=limits.free_share_min)
    lines = [*overview.lines(shown), room, *notes, *([] if short else [todo])]
    at.answer(
        shown
        | {"wanted": at.wanted.count, "notes": notes, "steps": len(plan.actions)}
        | {"growth": {"free_ratio": free_ratio, "outcome": grows.outcome, **msgspec.structs.asdict(limits)}},
        *lines,
    )
    return 0


async def _drain(at: At) -> int:
    if bool(at.arguments.name) == bool(at.arguments.host) or (at.arguments.undo and not at.arguments.host):
        raise SettingsError("say which: NODE..., or --host HOST (with --undo to let it take nodes again)")
    async with at.held() as lock:
        view = await at.look()
        if at.arguments.host:
            return await _drain_host(at, view, lock)
        return await _carry_out(at, lock, maintenance.plan_drain(view.pool, at.arguments.name))


async def _drain_host(at: At, view: View, lock: Lock) -> int:
    host = maintenance.find_host(view.pool, at.arguments.host)
    if at.arguments.undo:
        await trio.to_thread.run_sync(lambda: at.backend.open_host(host.host_id, is_open=True))
        at.answer({"host": host.name, "open": True}, f"{host.name} takes nodes again")
        return 0
    moved, stay = await maintenance.free_host(at.wanted, view, host, backend=at.backend, cloud=at.cloud, lock=lock)
    code = 0
    if stay:
        at.say(f"cannot be moved, so they are drained, and apply makes others elsewhere: {', '.join(stay)}")
        code = await _carry_out(at, lock, maintenance.plan_drain(view.pool, stay), quiet=True)
    at.answer(
        {"host": host.name, "open": False, "moved": moved, "drained": stay},
        f"{host.name} is free of nodes: {len(moved)} moved, {len(stay)} drained"
        if not code
        else f"{host.name} is not free",
    )
    return code


async def _snapshot(at: At) -> int:
    async with at.held() as lock:
        for name in at.arguments.name:
            await trio.to_thread.run_sync(lock.check)
            await trio.to_thread.run_sync(at.backend.snapshot, name, at.arguments.label)
    at.answer({"snapshots": at.arguments.name}, f"{len(at.arguments.name)} snapshots `{at.arguments.label}`")
    return 0


async def _destroy(at: At) -> int:
    wanted = msgspec.structs.replace(at.wanted, count=0)
    if not at.arguments.yes:
        view = await at.look()
        plan = (
            maintenance.plan_removal(view.pool) if at.arguments.with_data else make_plan(wanted, view.pool, view.nodes)
        )
        at.answer({"steps": [each.sentence() for each in plan.actions]}, *plan.lines(), "nothing was done: say --yes")
        return 0
    async with at.held() as lock:
        if at.arguments.with_data:
            return await _carry_out(at, lock, maintenance.plan_removal((await at.look()).pool))
        _answer_report(at, await at.run(lock).until_as(wanted))
    return 0


async def _carry_out(at: At, lock: Lock, plan: Plan, *, quiet: bool = False) -> int:
    for line in plan.lines():
        at.say(line)
    failed = await at.run(lock).carry_out(plan)
    if not quiet:
        at.answer(
            {"steps": len(plan.actions), "failed": {name: each.error.message for name, each in failed.items()}},
            f"{len(plan.actions)} steps, {len(failed)} nodes where one failed",
        )
    return int(bool(failed))


def _answer_report(at: At, report: Report) -> None:
    steps = sum(report.steps.values())
    at.answer(
        {"steps": report.steps, "rounds": report.rounds, "notes": report.notes},
        f"as wanted: {at.wanted.count} nodes ({steps} steps in {report.rounds} rounds)",
        *report.notes,
    )


TASKS: Final[dict[str, Callable[[At], Awaitable[int]]]] = {
    "plan": _plan,
    "apply": _apply,
    "reconcile": _reconcile,
    "status": _status,
    "scale": _scale,
    "drain": _drain,
    "snapshot": _snapshot,
    "destroy": _destroy,
}
