"""What a campaign needs to know of a part that promises durability: how to work it, and how to judge what is left.

A part is worked on a folder of its own in a child, which says `{"key", "seed", "at_ns"}` for each promise, after it was
given.
Refuses to do: faults (`tests.faults.real.sweep`, `tests.faults.real.lives`).
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.faults.real.forks import Say


class Role(NamedTuple):
    """One part that promises."""

    name: str
    prepare: Callable[[Path], None]  # what an earlier life left behind; called before a sweep's batch
    batch: Callable[[Path, Say], None]  # the same calls on files each time, and a second try of what was refused
    for_ever: Callable[[Path, int, Say], None]  # until it is killed, with seeds from the given one on
    check: Callable[[Path, Mapping[str, int]], list[str]]  # all promises kept, nothing half done: else what is wrong
    warm: bool  # whether a batch in the parent leaves no threads, and makes its children's starts cheap
    # SQLite writes again what a failed flush was of before it flushes the same file again, which `crash_states` tries
    # with a disk that forgets; so a second flush is no retry.
    writes_again: bool = False


def promise(say: Say, key: str, seed: int) -> None:
    """Tell of one promise, and when it was given."""
    say({"key": key, "seed": seed, "at_ns": time.monotonic_ns()})
