"""`fascicle send`: lists the files, streams them as one transfer, shows how it goes, and says what became of each.

A transfer that the gateway does not commit is made anew, at most `AGAIN_MAX` times. Refuses to do: the sending itself
(`transfer.sender`).
"""

import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from agent.attempts import Attempt, add_up
from agent.progress import Progress, Snapshot, open_progress, size_text
from agent.retry import back_off_s, is_over
from agent.sources import list_sources
from transfer import credentials as credentials_file
from transfer import memory
from transfer.chooser import preload
from transfer.client import GatewayClient
from transfer.control import path_memory, timetable
from transfer.control.bounds import bound_by
from transfer.control.gate import Gate
from transfer.control.presence import default_folder, serve_presence
from transfer.control.priority import Priority
from transfer.errors import FascicleError, SettingsError, UnusableFileError
from transfer.inspection import SourceFile
from transfer.outcomes import SendOptions, SendResult
from transfer.printable import printable
from transfer.sender import send_files
from transfer.tls import client_context

PROGRESS_S: Final = 0.25
RATE_S: Final = 1.0
AUTO: Final = "auto"
AGAIN_MAX: Final = 2  # what is still refused then is no matter of moments
NAMED_MAX: Final = 1000  # of what went wrong, in the summary; the rest is counted


def run(
    *,
    paths: Sequence[Path],
    credentials: Path,
    encoding: str = AUTO,
    flows: int | None = None,
    nodes: int | None = None,
    replicas: int | None = None,
    congestion: str = AUTO,
    priority: str = "routine",
    rate: str = "unlimited",
    workers: int | None = None,
    any_file: bool = False,
    as_json: bool = False,
) -> int:
    """Send `paths` and return the exit code: 0 all done, 1 some objects failed.

    Raises:
        FascicleError: the transfer as a whole failed.
    """
    options = SendOptions(
        encoding=encoding,
        flows=flows,
        nodes=nodes,
        replicas=replicas,
        congestion=congestion,
        priority=Priority[priority.upper()],
        any_file=any_file,
        timetable=timetable.parse(rate),
        workers=workers,
        memory=path_memory.default_path(os.environ),
    )
    memory.tune()
    command = _Send(options, as_json=as_json)
    summary = trio.run(command.run, list(paths), credentials)
    if as_json:
        print(msgspec.json.encode(summary).decode())
    else:
        _print_summary(summary)
    return 1 if summary["failed"] else 0


class _Send:
    def __init__(self, options: SendOptions, *, as_json: bool) -> None:
        self._options = options
        self._as_json = as_json
        self._attempts = [Attempt()]
        self._gate = Gate()
        self._unlisted: list[UnusableFileError] = []

    async def run(self, paths: list[Path], credentials: Path) -> dict[str, Any]:
        loaded = credentials_file.load(credentials)
        sources = await trio.to_thread.run_sync(self._list, paths)
        totals = (len(sources), sum(source.size_bytes for source in sources))
        with open_progress(as_json=self._as_json, stream=sys.stderr) as progress:
            async with (
                GatewayClient(loaded, patience_s=self._options.patience_s) as client,
                trio.open_nursery() as nursery,
            ):
                context, folder = client_context(loaded), default_folder(os.environ)
                await trio.to_thread.run_sync(preload, self._options.encoding)
                started_s, processor_s = time.monotonic(), time.process_time()  # right before the first read
                nursery.start_soon(self._show, progress, totals, started_s)
                nursery.start_soon(serve_presence, self._gate, folder, loaded.gateway, self._options.priority)
                result = await self._until_committed(
                    lambda attempt: send_files(
                        client,
                        _each(sources),
                        self._options,
                        context=context,
                        counters=attempt.counters,
                        outcomes=attempt.outcomes,
                        totals=totals,
                        gate=self._gate,
                    )
                )
                seconds = time.monotonic() - started_s
                nursery.cancel_scope.cancel()
        return self._summary(result, seconds, (time.process_time() - processor_s) / max(seconds, 1e-9))

    async def _until_committed(self, send: Callable[[Attempt], Awaitable[SendResult]]) -> SendResult:
        """Send, and again where the gateway does not commit what was sent; it says itself that this is what to do."""
        while True:
            try:
                return await send(self._attempts[-1])
            except FascicleError as error:
                number = len(self._attempts)
                if not is_over(error) or number > AGAIN_MAX:
                    raise
                reason = printable(" ".join(error.message.split()))
                print(f"fascicle: sending again ({number} of {AGAIN_MAX}): {reason}", file=sys.stderr)
            self._attempts.append(Attempt())
            await trio.sleep(back_off_s(number, random.random()))  # noqa: S311 - no secret

    def _list(self, paths: list[Path]) -> list[SourceFile]:
        sources = []
        for path in paths:
            if not os.path.lexists(path):
                raise SettingsError(f"{path}: no such file or folder")
            for found in list_sources(path):
                if isinstance(found, UnusableFileError):
                    self._unlisted.append(found)
                else:
                    sources.append(found)
        return sources

    async def _show(self, progress: Progress, totals: tuple[int, int], started_s: float) -> None:
        samples = [(started_s, 0)]
        while True:
            counters = self._attempts[-1].counters
            done_bytes = sum(attempt.counters.bytes for attempt in self._attempts)
            now_s = time.monotonic()
            samples = [sample for sample in samples if now_s - sample[0] <= RATE_S] or samples[-1:]
            samples.append((now_s, done_bytes))
            span_s = max(now_s - samples[0][0], 1e-3)
            progress.update(
                Snapshot(
                    elapsed_s=now_s - started_s,
                    objects_done=counters.objects + counters.skipped,
                    objects_total=totals[0],
                    objects_skipped=counters.skipped,
                    objects_failed=counters.failed,
                    bytes_done=done_bytes,
                    bytes_total=totals[1],
                    rate_now_bytes_s=(done_bytes - samples[0][1]) / span_s,
                    node_bytes=dict(counters.node_bytes),
                    bound_by=bound_by(counters.evidence(processor_ratio=0.0)),
                )
            )
            await trio.sleep(PROGRESS_S)

    def _summary(self, result: SendResult, seconds: float, processor_ratio: float) -> dict[str, Any]:
        ignored = [outcome for outcome in result.outcomes if outcome.ignored]
        failed = [outcome for outcome in result.outcomes if outcome.error is not None and not outcome.ignored]
        reasons = [
            *(_failure(str(o.source.path), o.error) for o in failed if o.error),
            *(_failure("", error) for error in self._unlisted),
        ]
        counters = add_up(self._attempts)
        return {
            "objects": counters.objects,
            "bytes": counters.bytes,
            "wire_bytes": counters.wire_bytes,
            "skipped": counters.skipped,
            "ignored": len(ignored),
            "failed": len(reasons),
            "seconds": round(seconds, 4),
            "flows": counters.flows,
            "nodes": dict(sorted(counters.node_bytes.items())),
            "encodings": counters.encodings,
            "bound_by": bound_by(counters.evidence(processor_ratio)),
            "timeline": counters.timeline,
            "receipt": result.receipt,
            "ignored_files": [_text(str(outcome.source.path)) for outcome in ignored[:NAMED_MAX]],
            "failures": reasons[:NAMED_MAX],
        }


def _failure(file: str, error: FascicleError) -> dict[str, str]:
    return {"file": _text(file), "code": error.code, "reason": _text(error.message)}


def _text(found: str) -> str:
    """Write what holds the name of a file as text that JSON can carry; bytes that are not UTF-8 as \\xNN."""
    return found.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


async def _each(sources: list[SourceFile]) -> AsyncIterator[SourceFile]:
    for source in sources:
        yield source


def _print_summary(summary: dict[str, Any]) -> None:
    rate = summary["bytes"] / max(summary["seconds"], 1e-9)
    print(
        f"{summary['objects']} objects, {size_text(summary['bytes'])} in {summary['seconds']:.2f} s "
        f"({size_text(rate)}/s), {summary['skipped']} stored already, {summary['ignored']} ignored, "
        f"{summary['failed']} failed; bound by {summary['bound_by'] or 'nothing'}"
    )
    for name in summary["ignored_files"]:
        print(f"ignored, not a DICOM image: {printable(name)}")
    for failure in summary["failures"]:
        print(f"failed: {printable(failure['reason'])}", file=sys.stderr)
    for conflict in summary["receipt"].conflicts if summary["receipt"] else []:
        kept = ", ".join(conflict.object_ids)
        print(f"warning: {printable(conflict.sop_instance_uid)} has different bytes, all kept: {kept}", file=sys.stderr)
