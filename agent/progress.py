"""Shows how one transfer goes: a live block on a terminal, a line every few seconds elsewhere, nothing with `--json`.

`render` and `render_line` are pure functions of a `Snapshot`; the three kinds of `Progress` only decide when to
write. Refuses to do: counting, measuring, or holding up the transfer (at most 4 writes a second, none when the
stream is gone).
"""

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

LIVE_EVERY_S: Final = 0.25
LINE_EVERY_S: Final = 5.0
WIDTH_MIN: Final = 20
UNITS: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One transfer at one moment. Totals are None while the sources are still being listed.

    `objects_done` counts what is durable now or was before (`objects_skipped` of them were stored already);
    `bytes_done` counts original bytes sent and durable; `rate_now_bytes_s` is over the last second or so;
    `node_bytes` is what each node has taken; `bound_by` is link, processor, disk, receiver, rate or "".
    """

    elapsed_s: float = 0.0
    objects_done: int = 0
    objects_total: int | None = None
    objects_skipped: int = 0
    objects_failed: int = 0
    bytes_done: int = 0
    bytes_total: int | None = None
    rate_now_bytes_s: float = 0.0
    node_bytes: Mapping[str, int] = field(default_factory=dict)
    bound_by: str = ""

    @property
    def rate_mean_bytes_s(self) -> float:
        """Bytes a second since the start."""
        return self.bytes_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the mean of both rates, None while that is not known."""
        rate = (self.rate_now_bytes_s + self.rate_mean_bytes_s) / 2
        if self.bytes_total is None or rate <= 0:
            return None
        return max(0, self.bytes_total - self.bytes_done) / rate


class Progress(Protocol):
    """Where a transfer reports to."""

    def update(self, snapshot: Snapshot) -> None:
        """Show `snapshot`, or let it pass when one was shown a moment ago."""


def size_text(size_bytes: float) -> str:
    """Write a size in decimal units with three digits, as links and disks are sold: `1.23 MB`."""
    unit = 0
    while size_bytes >= 999.5 and unit < len(UNITS) - 1:
        size_bytes /= 1000
        unit += 1
    if unit == 0:
        return f"{size_bytes:.0f} B"
    return f"{size_bytes:.{2 if size_bytes < 9.995 else 1 if size_bytes < 99.95 else 0}f} {UNITS[unit]}"


def time_text(seconds: float | None) -> str:
    """Write a duration as `m:ss` or `h:mm:ss`, `-` when it is not known."""
    if seconds is None or seconds > 99 * 86400:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def render(snapshot: Snapshot, width: int) -> str:
    """Return the terminal's block: bar, rates, share per node; no line longer than `width` (at least 20) columns."""
    width = max(width, WIDTH_MIN)
    lines = [_bar(snapshot, width), _objects(snapshot), _rates(snapshot), _shares(snapshot.node_bytes, width)]
    return "\n".join(line[:width] for line in lines if line)


def render_line(snapshot: Snapshot) -> str:
    """Return everything that a log needs in one line."""
    return f"{_objects(snapshot)}; {_amount(snapshot)}; {_rates(snapshot)}"


def _share(snapshot: Snapshot) -> float | None:
    """Return what is done, 0 to 1: by bytes, else by objects (a transfer of which all was stored sends no byte)."""
    for done, total in (
        (snapshot.bytes_done, snapshot.bytes_total),
        (snapshot.objects_done, snapshot.objects_total),
    ):
        if total:
            return min(1.0, done / total)
    return None


def _bar(snapshot: Snapshot, width: int) -> str:
    share = _share(snapshot)
    label = f" {_amount(snapshot)}" if share is None else f" {share:4.0%} {_amount(snapshot)}"
    room = max(4, width - len(label) - 2)
    full = round((share or 0.0) * room)
    return f"[{'#' * full}{'.' * (room - full)}]{label}"


def _of(done: str, total: str | None) -> str:
    return done if total is None else f"{done} of {total}"


def _amount(snapshot: Snapshot) -> str:
    total = None if snapshot.bytes_total is None else size_text(snapshot.bytes_total)
    return _of(size_text(snapshot.bytes_done), total)


def _objects(snapshot: Snapshot) -> str:
    total = None if snapshot.objects_total is None else str(snapshot.objects_total)
    parts = [f"objects {_of(str(snapshot.objects_done), total)}"]
    if snapshot.objects_skipped:
        parts.append(f"{snapshot.objects_skipped} stored already")
    if snapshot.objects_failed:
        parts.append(f"{snapshot.objects_failed} failed")
    return ", ".join(parts)


def _rates(snapshot: Snapshot) -> str:
    now, mean = size_text(snapshot.rate_now_bytes_s), size_text(snapshot.rate_mean_bytes_s)
    bound = f", bound by {snapshot.bound_by}" if snapshot.bound_by else ""
    times = f"{time_text(snapshot.elapsed_s)} gone, {time_text(snapshot.eta_s)} to go"
    return f"{now}/s now, {mean}/s mean, {times}{bound}"


def _shares(node_bytes: Mapping[str, int], width: int) -> str:
    """Return each node's share of the bytes, as many nodes as fit, then how many more."""
    total = sum(node_bytes.values())
    if not total:
        return ""
    parts = [f"{node} {taken / total:.0%}" for node, taken in sorted(node_bytes.items())]
    for shown in range(len(parts), 0, -1):
        more = f"  +{len(parts) - shown} nodes" if shown < len(parts) else ""
        line = "  ".join(parts[:shown]) + more
        if len(line) <= width:
            return line
    return f"{len(parts)} nodes"


class _Silent:
    """For programs that read one summary at the end."""

    def update(self, snapshot: Snapshot) -> None:
        """Show nothing."""


class _Paced:
    """Passes on at most one snapshot every `every_s`, and in the end the last one."""

    def __init__(self, show: Callable[[Snapshot], None], every_s: float) -> None:
        self._show, self._every_s = show, every_s
        self._due_s = time.monotonic() + (every_s if every_s >= 1 else 0.0)
        self._held: Snapshot | None = None

    def update(self, snapshot: Snapshot) -> None:
        self._held = snapshot
        if (now_s := time.monotonic()) >= self._due_s:
            self._due_s = now_s + self._every_s
            self.finish()

    def finish(self) -> None:
        if self._held is None:
            return
        held, self._held = self._held, None
        with contextlib.suppress(OSError):  # a closed pipe or terminal does not stop a transfer
            self._show(held)


@contextlib.contextmanager
def open_progress(*, as_json: bool, stream: TextIO) -> Iterator[Progress]:
    """Choose the form that fits `stream` (standard error, so that standard output stays a program's)."""
    if as_json:
        yield _Silent()
        return
    with contextlib.ExitStack() as stack:
        paced = stack.enter_context(_open_live(stream)) if _is_terminal(stream) else _lines(stream)
        try:
            yield paced
        finally:
            paced.finish()


def _is_terminal(stream: TextIO) -> bool:
    with contextlib.suppress(io.UnsupportedOperation, ValueError):  # no terminal: captured, or closed
        return stream.isatty()
    return False


def _lines(stream: TextIO) -> _Paced:
    def show(snapshot: Snapshot) -> None:
        stream.write(f"{render_line(snapshot)}\n")
        stream.flush()

    return _Paced(show, LINE_EVERY_S)


@contextlib.contextmanager
def _open_live(stream: TextIO) -> Iterator[_Paced]:
    console = Console(file=stream)
    with Live(console=console, auto_refresh=False) as live:

        def show(snapshot: Snapshot) -> None:
            live.update(Text(render(snapshot, console.width - 1)), refresh=True)

        yield _Paced(show, LIVE_EVERY_S)
