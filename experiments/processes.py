"""Processor time and memory of whole trees of processes, read from /proc (proc(5)).

The time of a child that has ended is in its parent once that has waited for it, so the sum over a tree that is alive is
the tree's whole time. Refuses to do: starting or ending anything.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
GONE: Final = (FileNotFoundError, ProcessLookupError)


def tree(roots: Iterable[int]) -> list[int]:
    """Return `roots` and all processes below them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def processor_s(pids: Iterable[int]) -> float:
    """Return user and system seconds of `pids` and of their children that have ended."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) * TICK_S


def resident_peak_bytes(pid: int) -> int:
    """Return the most memory that `pid` had resident so far (VmHWM); 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except GONE:
        pass
    return 0


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (state, parent, ...)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except GONE:
        return []
