"""TCP's congestion control at both ends of a link, and the kernel's settings that a report must name.

A namespace may only take an algorithm that the kernel's own list `tcp_allowed_congestion_control` has; the list is
machine-wide, so it is widened for the time of an experiment and put back. Also, no namespace may remember what an
earlier run learnt about the path. Refuses to do: choosing for a single socket (`send --congestion` does).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from experiments.namespaces import LinkError, Side, call, program
from transfer.errors import SettingsError

SYSCTL: Final = Path("/proc/sys/net/ipv4")
RECORDED: Final = (
    "tcp_congestion_control",
    "tcp_rmem",
    "tcp_wmem",
    "tcp_slow_start_after_idle",
    "tcp_no_metrics_save",
    "tcp_sack",
    "tcp_timestamps",
)


@contextmanager
def allowed(algorithm: str) -> Iterator[None]:
    """Let namespaces choose `algorithm` for as long as this is open.

    Raises:
        SettingsError: the kernel does not have it.
    """
    available = (SYSCTL / "tcp_available_congestion_control").read_text().split()
    if algorithm and algorithm not in available:
        raise SettingsError(f"--congestion {algorithm!r}: this kernel has {', '.join(available)}")
    before = (SYSCTL / "tcp_allowed_congestion_control").read_text()
    if not algorithm or algorithm in before.split():
        yield
        return
    (SYSCTL / "tcp_allowed_congestion_control").write_text(f"{before.strip()} {algorithm}\n")
    try:
        yield
    finally:
        (SYSCTL / "tcp_allowed_congestion_control").write_text(before)


def choose(ends: Sequence[Side], algorithm: str) -> None:
    """Set `algorithm` ("": as the kernel has it) at both ends, and let them forget every path."""
    wanted = {"tcp_no_metrics_save": "1"} | ({"tcp_congestion_control": algorithm} if algorithm else {})
    for end in ends:
        for name, value in wanted.items():
            call(*end.command(program("sh"), "-c", f"echo {value} > {SYSCTL / name}"))


def observed(end: Side) -> dict[str, Any]:
    """Return the settings that matter, as they are at `end`."""
    found = {}
    for name in RECORDED:
        try:
            found[name] = " ".join(call(*end.command(program("cat"), SYSCTL / name)).split())
        except LinkError:  # an older kernel, or a newer one without it
            continue
    return {"sysctl": found, "kernel": os.uname().release}
