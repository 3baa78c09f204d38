"""Long calls as tasks, and waiting by events: never by asking again and again.

A task is destroyed when it has been waited for, whatever came of it. Waiting is `event.from` with a token; when the
token is not known any more (another coordinator), it begins anew with none, which tells the state of now first. Refuses
to do: sessions.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from transfer import log
from transfer.errors import BusyError, FascicleError, UnreachableError
from xen.xenapi import errors
from xen.xenapi.session import PoolSession

logger = log.get_logger()
BATCH_S: Final = 20.0  # of one event.from; below the time limit of a call
FIRST_S: Final = 1.0  # of one without a token: what is there is told at once, what another coordinator forgot never
ENDED: Final = frozenset({"success", "failure", "cancelled"})
TOKEN_LOST: Final = "EVENT_FROM_TOKEN_PARSE_FAILURE"  # noqa: S105  # XenAPI's name of an error
Progress = Callable[[float], None]


def run_task(
    session: PoolSession, method: str, *parameters: Any, timeout_s: float, progress: Progress | None = None
) -> str:
    """Return the result of the asynchronous form of `method` ('' for none); cancelled after `timeout_s`.

    Raises:
        UnreachableError: the task is not known any more, or takes too long: it may have been done.
        FascicleError: the task's error (`xen.xenapi.errors`).
    """
    task = str(session.call(f"Async.{method}", *parameters))
    return wait_task(session, method, task, timeout_s=timeout_s, progress=progress)


def wait_task(
    session: PoolSession, method: str, task: str, *, timeout_s: float, progress: Progress | None = None
) -> str:
    """Wait for a task of ours and destroy it; see `run_task`."""
    try:
        record = _ended(session, method, task, timeout_s, progress)
    finally:
        _destroy(session, task)
    if record["status"] == "failure":
        raise errors.wrap(method, record["error_info"])
    if record["status"] == "cancelled":
        raise BusyError(f"{method} was cancelled at the pool (TASK_CANCELLED)")
    found = re.fullmatch(r"(?:<value>)?(.*?)(?:</value>)?", record["result"], re.DOTALL)
    return found[1] if found else ""


def watch(session: PoolSession, classes: Sequence[str], timeout_s: float) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of events of these classes (`VM/REFERENCE`, ...), the state of now first, for `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    token = ""
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            most_s = BATCH_S if token else FIRST_S
            batch = session.call("event.from", list(classes), token, min(most_s, left_s))
        except FascicleError as error:
            if errors.name_of(error) != TOKEN_LOST or not token:
                raise
            token = ""
            continue
        token = batch["token"]
        yield batch["events"]


def _ended(session: PoolSession, method: str, task: str, timeout_s: float, progress: Progress | None) -> dict[str, Any]:
    for events in watch(session, [f"task/{task}"], timeout_s):
        for event in events:
            if event["ref"] != task:
                continue
            if event["operation"] == "del":
                raise UnreachableError(f"the task of {method} is gone from the pool; it may have been done")
            record: dict[str, Any] = event["snapshot"]
            if record["status"] in ENDED:
                return record
            if progress is not None:
                progress(float(record["progress"]))
        if not events:
            _check_known(session, method, task)
    _cancel(session, task)
    raise UnreachableError(f"{method} is not done after {timeout_s:.0f} s; it was cancelled, and may have been done")


def _check_known(session: PoolSession, method: str, task: str) -> None:
    """Find out whether another coordinator has forgotten the task, of which no event tells.

    Raises:
        UnreachableError: it has.
    """
    try:
        session.call("task.get_status", task)
    except FascicleError as error:
        if errors.name_of(error) != "HANDLE_INVALID":
            raise
        raise UnreachableError(f"the task of {method} is gone from the pool; it may have been done") from error


def _cancel(session: PoolSession, task: str) -> None:
    try:
        session.call("task.cancel", task)
    except FascicleError as error:
        logger.info("pool_task_not_cancelled", reason=error.message)


def _destroy(session: PoolSession, task: str) -> None:
    try:
        session.call("task.destroy", task)
    except FascicleError as error:
        logger.info("pool_task_not_destroyed", reason=error.message)
