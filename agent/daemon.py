"""`fascicle agent run`: settings, signals and service manager around the daemon's process tree (`agent.tree`).

Refuses to do: any of the work.
"""

import signal
from collections.abc import Mapping
from pathlib import Path

import trio

from agent import systemd
from agent.delivery import Deliver
from agent.outbound import deliveries
from agent.settings import AgentSettings, load_settings
from agent.tree import serve_agent
from transfer import log as logs
from transfer.groups import first_error_only
from transfer.log import get_logger

log = get_logger()


def run(path: Path) -> None:
    """Run the agent that `path` configures until SIGTERM or SIGINT.

    Raises:
        SettingsError: the settings cannot be used, or a folder or port of theirs is in use.
        StorageError, FullError: the state folder's disk failed.
    """
    settings = load_settings(path)
    logs.configure(role="agent")
    trio.run(_run, settings, deliveries(settings))


async def _run(settings: AgentSettings, deliver: Mapping[str, Deliver]) -> None:
    with first_error_only():
        await _run_until_stopped(settings, deliver)
    log.info("agent_stopped")


async def _run_until_stopped(settings: AgentSettings, deliver: Mapping[str, Deliver]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(_wait_for_stop, nursery.cancel_scope)
        await nursery.start(serve_agent, settings, deliver)
        systemd.notify("READY=1")
        log.info("agent_ready", destinations=len(settings.destination), watches=len(settings.watch))


async def _wait_for_stop(
    scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("agent_stopping", signal=signal.Signals(number).name)
            systemd.notify("STOPPING=1")
            scope.cancel()
            return
