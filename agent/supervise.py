"""Keeps a task alive: one log line a crash, then again after a back-off that grows while crashes follow each other.

Refuses to do: giving up. Images wait in the spool and in the queue, so trying on, seldom, is right even for what a
person has to mend.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from agent.retry import back_off_s, is_retryable
from transfer.errors import FascicleError
from transfer.log import get_logger

log = get_logger()
HEALTHY_S: Final = 60.0  # a task that ran this long before it crashed begins its count anew


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
            code = error.code if isinstance(error, FascicleError) else "internal"
            log.error(  # noqa: TRY400 - one line, not a page
                "task_crashed", task=name, code=code, error=repr(error), failures=failures, wait_s=round(wait_s, 1)
            )
            await trio.sleep(wait_s)
        else:
            return
