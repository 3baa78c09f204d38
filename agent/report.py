"""STATE/status.json: what is still to go, per destination, for technicians and for programs; rewritten in one step.

Refuses to do: being durable (it describes this moment only), asking anything but statistics that are at hand.
"""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from agent.delivery import Destination
from agent.items import SPOOL, Backlog
from agent.queue import Queue
from agent.spool import Spool
from agent.watch import Watcher
from transfer import disk
from transfer.errors import NotStoredError, StorageError

EVERY_S: Final = 5.0
REST_RATIO: Final = 20  # counting a million waiting objects takes about a second
LISTED_MAX: Final = 100
FILE_BYTES_MAX: Final = 16 << 20


class DestinationReport(msgspec.Struct, frozen=True, kw_only=True):
    """One destination: what waits for it, and how it does. Times are Unix seconds."""

    name: str
    configured: bool
    state: str
    waiting_objects: int
    waiting_bytes: int
    waiting_stat_objects: int
    oldest_waiting_at_s: float | None
    parked_objects: int
    delivered_objects: int
    delivered_bytes: int
    failures: int
    last_error: str
    next_try_at_s: float | None


class WatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """One watched folder: how many files still settle, were taken since start, and what cannot be taken."""

    folder: str
    settling: int
    taken: int
    troubles: list[tuple[str, str]]


class Unsent(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is not sent (not DICOM, truncated, ...) until it changes or the agent starts anew."""

    destination: str
    path: str
    reason: str


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. It is of now if `written_at_s` is: the agent writes it every few seconds."""

    written_at_s: float
    started_at_s: float
    pid: int
    scp_port: int
    spool_free_bytes: int
    spool_reserve_bytes: int
    destinations: list[DestinationReport]
    watches: list[WatchReport]
    unsent: list[Unsent]


class Reporter:
    """Gathers the report from the parts of a running agent."""

    def __init__(
        self,
        queue: Queue,
        spool: Spool,
        destinations: Sequence[Destination],
        watchers: Sequence[Watcher],
        scp_port: int = 0,
    ) -> None:
        self._queue, self._spool = queue, spool
        self._destinations, self._watchers = destinations, watchers
        self._scp_port = scp_port
        self._started_at_s = time.time()

    async def report(self) -> AgentReport:
        """Return the agent's state at this moment."""
        backlogs = {backlog.destination: backlog for backlog in await self._queue.backlogs()}
        return AgentReport(
            written_at_s=time.time(),
            started_at_s=self._started_at_s,
            pid=os.getpid(),
            scp_port=self._scp_port,
            spool_free_bytes=disk.free_bytes(str(self._spool.folder)),
            spool_reserve_bytes=self._spool.reserve_bytes,
            destinations=[
                *(_destination(each, backlogs.pop(each.name, None)) for each in self._destinations),
                *(_orphan(backlog) for backlog in backlogs.values()),
            ],
            watches=[_watch(watcher) for watcher in self._watchers],
            unsent=await self._unsent(),
        )

    async def _unsent(self) -> list[Unsent]:
        return [
            Unsent(
                destination=destination,
                path=_text(bytes(self._spool.path(os.fsdecode(path))) if source == SPOOL else path),
                reason=reason,
            )
            for destination, source, path, reason in await self._queue.parked(LISTED_MAX)
        ]


def status_path(state: Path) -> Path:
    """Return where the report of the agent with this state folder is."""
    return state / "status.json"


def read_report(path: Path) -> AgentReport:
    """Read a report that an agent wrote.

    Raises:
        NotStoredError: no agent has run here.
        StorageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=AgentReport)
    except FileNotFoundError as error:
        raise NotStoredError(f"{path}: no agent has written its state here") from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error


async def serve_reports(report: Callable[[], Awaitable[AgentReport]], path: Path) -> None:
    """Write the report every few seconds.

    Raises:
        StorageError, FullError: it cannot be written now.
    """
    while True:
        began_s = trio.current_time()
        text = msgspec.json.format(msgspec.json.encode(await report()), indent=2)
        await trio.to_thread.run_sync(_write, path, text)
        await trio.sleep(max(EVERY_S, (trio.current_time() - began_s) * REST_RATIO))


def _write(path: Path, text: bytes) -> None:
    temporary = f"{path}.new"
    disk.unlink(temporary)
    descriptor = disk.create(temporary)
    try:
        disk.write_at(descriptor, [text, b"\n"], 0)
    finally:
        disk.close(descriptor)
    disk.rename(temporary, str(path))


def _destination(destination: Destination, backlog: Backlog | None) -> DestinationReport:
    found = destination.statistics()
    waiting = backlog or Backlog(found.name, 0, 0, 0, 0, None)
    return DestinationReport(
        name=found.name,
        configured=True,
        state=found.state,
        waiting_objects=waiting.objects,
        waiting_bytes=waiting.bytes,
        waiting_stat_objects=waiting.stat_objects,
        oldest_waiting_at_s=waiting.oldest_at_s,
        parked_objects=waiting.parked,
        delivered_objects=found.delivered_objects,
        delivered_bytes=found.delivered_bytes,
        failures=found.failures,
        last_error=found.last_error,
        next_try_at_s=found.next_try_s,
    )


def _orphan(backlog: Backlog) -> DestinationReport:
    """Return what still waits for a destination that the settings no longer name: it is kept, not sent."""
    return DestinationReport(
        name=backlog.destination,
        configured=False,
        state="not configured",
        waiting_objects=backlog.objects,
        waiting_bytes=backlog.bytes,
        waiting_stat_objects=backlog.stat_objects,
        oldest_waiting_at_s=backlog.oldest_at_s,
        parked_objects=backlog.parked,
        delivered_objects=0,
        delivered_bytes=0,
        failures=0,
        last_error="",
        next_try_at_s=None,
    )


def _watch(watcher: Watcher) -> WatchReport:
    found = watcher.statistics()
    troubles = [(_text(os.fsencode(path)), reason) for path, reason in found.troubles[:LISTED_MAX]]
    return WatchReport(folder=found.folder, settling=found.settling, taken=found.taken, troubles=troubles)


def _text(path: bytes) -> str:
    """Write any path as text that JSON can carry; bytes that are not UTF-8 as \\xNN."""
    return path.decode("utf-8", "backslashreplace")
