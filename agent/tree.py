"""The process tree of the workstation's daemon.

    agent
    |- intake         spool -> queue
    |- releases       what every destination has is let go
    |- status         STATE/status.json
    |- certificates   of the destinations' credentials: renewed in time
    |- watches        one task a folder
    |- destinations   one task a destination
    `- scp            C-STORE and C-ECHO

Every task is supervised by itself: a crash is one log line and a later restart, and touches no other task. Only
what is wrong at the start (settings, a port or folder in use) ends it. Refuses to do: any of the work.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from agent.after import Rule
from agent.delivery import Deliver, Destination
from agent.intake import serve_intake
from agent.items import Item
from agent.lock import open_lock
from agent.queue import Queue, open_queue
from agent.release import serve_releases
from agent.renewal import keep_certificates
from agent.report import Reporter, serve_reports, status_path
from agent.scp import serve_scp
from agent.settings import AgentSettings, WatchSettings, destinations_of, priority_of
from agent.spool import Spool, open_spool
from agent.spoolplace import identity_of, remember, require_same_or_empty
from agent.supervise import supervise, supervise_started
from agent.watch import Watcher
from transfer.leftovers import clear_leftovers
from transfer.log import get_logger
from transfer.stream import port_of

SPOOLED_ASKED: Final = 100  # that tell whether the spool is the one that the queue speaks of
log = get_logger()
Task = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Agent:
    """The parts of a running agent; `scp_port` is 0 when it has no C-STORE port."""

    settings: AgentSettings
    queue: Queue
    spool: Spool
    watchers: Sequence[Watcher]
    destinations: Sequence[Destination]
    scp_port: int

    async def serve(self) -> None:
        """Run every task."""
        settings, spool = self.settings.spool, self.spool
        names, priority = destinations_of(self.settings, settings.destinations), priority_of(settings.priority)
        rules = {watch.folder: Rule(watch.folder, watch.after, watch.move_to) for watch in self.settings.watch}
        reporter = Reporter(self.queue, spool, self.destinations, self.watchers, self.scp_port)
        path = status_path(Path(self.settings.state))
        keys = {Path(each.credentials) for each in self.settings.destination}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, "intake", lambda: serve_intake(self.queue, spool, names, priority))
            nursery.start_soon(supervise, "releases", lambda: serve_releases(self.queue, spool, rules))
            nursery.start_soon(supervise, "status", lambda: serve_reports(reporter.report, path))
            nursery.start_soon(supervise, "certificates", lambda: keep_certificates(keys))
            nursery.start_soon(_serve_level, {f"watch {each.folder}": each.serve for each in self.watchers})
            nursery.start_soon(_serve_level, {f"destination {each.name}": each.serve for each in self.destinations})


async def _serve_level(tasks: Mapping[str, Task]) -> None:
    async with trio.open_nursery() as nursery:
        for name, task in tasks.items():
            nursery.start_soon(supervise, name, task)


async def serve_agent(
    settings: AgentSettings,
    deliveries: Mapping[str, Deliver],
    task_status: trio.TaskStatus[Agent] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve with the given ways to deliver, one for each destination; started when it takes images."""
    state, place = Path(settings.state), Path(settings.state) / "spool_folder"
    async with AsyncExitStack() as stack:
        stack.enter_context(open_lock(state))
        await trio.to_thread.run_sync(clear_leftovers, state)
        queue = await stack.enter_async_context(open_queue(state / "queue.db"))
        spool_folder, reserve_bytes = Path(settings.spool.folder), settings.spool.reserve_bytes
        queued = await queue.spooled(SPOOLED_ASKED)
        await trio.to_thread.run_sync(require_same_or_empty, place, spool_folder, queued)
        spool = await stack.enter_async_context(open_spool(spool_folder, reserve_bytes=reserve_bytes))
        identity = await trio.to_thread.run_sync(remember, place, spool_folder)
        await queue.hurry()
        if (tried_again := await queue.unpark()) > 0:
            log.info("unparked", objects=tried_again)
        nursery = await stack.enter_async_context(trio.open_nursery())
        agent = Agent(
            settings,
            queue,
            spool,
            [_watcher(watch, settings, queue) for watch in settings.watch],
            [
                Destination(name, queue, deliver, _locator(spool), lambda: identity_of(spool_folder) == identity)
                for name, deliver in deliveries.items()
            ],
            await _start_scp(nursery, settings, spool),
        )
        task_status.started(agent)
        await agent.serve()


async def _start_scp(nursery: trio.Nursery, settings: AgentSettings, spool: Spool) -> int:
    if settings.scp is None:
        return 0
    listener = await nursery.start(supervise_started, "scp", partial(serve_scp, settings.scp, spool))
    return port_of(listener)


def _watcher(watch: WatchSettings, settings: AgentSettings, queue: Queue) -> Watcher:
    return Watcher(
        watch.folder,
        queue,
        destinations=destinations_of(settings, watch.destinations),
        priority=priority_of(watch.priority),
        settle_s=watch.settle_s,
        ignore=watch.ignore,
    )


def _locator(spool: Spool) -> Callable[[Item], Path]:
    return lambda item: item.location(spool.ready)
