"""Keeps a task alive: one log line a crash, then again after a back-off that grows while crashes follow each other.

Refuses to do: giving up. Images wait in the spool and in the queue, so trying on, seldom, is right even for what a
person has to mend.
"""

import os
import random
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from agent.retry import back_off_s, is_retryable
from transfer.errors import FascicleError
from transfer.log import get_logger

log = get_logger()
HEALTHY_S: Final = 60.0  # a task that ran this long before it crashed begins its count anew


class _FirstStart:
    """Passes on the first start, and remembers it."""

    def __init__(self, outer: trio.TaskStatus[Any]) -> None:
        self._outer, self.has_started = outer, False

    def started(self, value: Any = None) -> None:
        if not self.has_started:
            self.has_started = True
            self._outer.started(value)


async def supervise_started(
    name: str, task: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
) -> None:
    """Supervise a task that takes `task_status`; what it raises before its first start is raised here."""
    status = _FirstStart(task_status)
    try:
        await task(task_status=status)
    except Exception as error:
        if not status.has_started:
            raise
        _log_crash(name, error, 1, 0.0)
    await supervise(name, lambda: task(task_status=status))


async def supervise(name: str, task: Callable[[], Awaitable[None]]) -> None:
    """Run `task` until it returns; restart it when it crashes."""
    failures = 0
    while True:
        began_s = trio.current_time()
        try:
            await task()
        except Exception as error:
            failures = 1 if trio.current_time() - began_s >= HEALTHY_S else failures + 1
            wait_s = back_off_s(failures, random.random(), retryable=is_retryable(error))  # noqa: S311 - no secret
            _log_crash(name, error, failures, wait_s)
            await trio.sleep(wait_s)
        else:
            return


def what_failed(error: BaseException) -> str:
    """Return kind and place of an error, without its text: that may quote names of files, which may be patients'."""
    reason = error if isinstance(error, OSError) else error.__cause__
    number = f": {os.strerror(reason.errno)}" if isinstance(reason, OSError) and reason.errno else ""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{number}{where}"


def _log_crash(name: str, error: Exception, failures: int, wait_s: float) -> None:
    code = error.code if isinstance(error, FascicleError) else "internal"
    log.error(
        "task_crashed", task=name, code=code, error=what_failed(error), failures=failures, wait_s=round(wait_s, 1)
    )
