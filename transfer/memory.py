"""Memory of a process that moves large buffers all the time: what was freed is used again, not given back.

glibc gives buffers above 128 KiB back to the system when they are freed, and every new one costs a page fault for each
4 KiB, which is dear in virtual machines; and Python's collector walks all modules again and again for garbage that
frames and bytes never are. Measured: docs/decisions/0005-data-path.md. Refuses to do: limits; what may be in memory at
once is the business of credits and budgets.
"""

import ctypes
import gc
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1  # malloc.h
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
KEPT_BYTES: Final = 256 << 20
COLLECT_EVERY: Final = 50_000


def tune() -> None:
    """Tune this process; once, when its modules are loaded. Without glibc only the collector is."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_ARENA_MAX, 1)  # threads' own arenas give empty heaps of 64 MiB back whatever the thresholds say
