"""Exact processor time of everything that runs at one end of a link: a control group (cgroup v2) for each end.

`cpu.stat` of a group counts every process that was ever in it, also those that ended unseen (vsftpd's sessions do).
Where groups cannot be made, the sums of `experiments.processes` are used; a report says which. Refuses to do: limiting.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

EMPTY_WITHIN_S: Final = 20.0  # a cluster under load takes seconds to end


@contextmanager
def open_groups(names: Sequence[str]) -> Iterator[list[Path | None]]:
    """Make a control group for each name, and remove them at the end; None for each where that cannot be done."""
    groups = _make(names)
    try:
        yield [*groups] or [None] * len(names)
    finally:
        for group in groups:
            remove(group)


def _make(names: Sequence[str]) -> list[Path]:
    root = mount_point()
    if root is None:
        return []
    groups = [root / name for name in names]
    try:
        for group in groups:
            group.mkdir()
    except OSError:  # not root's to give away here
        for group in groups:
            remove(group)
        return []
    return groups


def mount_point() -> Path | None:
    """Return where the kernel's cgroup v2 tree is mounted and can be written, if anywhere."""
    with suppress(OSError):  # no such tree here: /proc tells instead
        for line in Path("/proc/mounts").read_text().splitlines():
            _, place, kind, options, *_ = line.split()
            if kind == "cgroup2" and "rw" in options.split(","):
                return Path(place)
    return None


def processor_s(group: Path) -> float:
    """Return user and system seconds of everything that was ever in `group`."""
    for line in (group / "cpu.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / 1e6
    return 0.0


def entering(group: Path) -> list[str]:
    """Return the words before a command line that put it into `group`."""
    return ["/bin/sh", "-c", f'echo 0 > {group}/cgroup.procs && exec "$@"', "sh"]


def remove(group: Path) -> None:
    """Remove an empty group; one whose processes are just ending is waited for, one that is not there is fine."""
    deadline_s = time.monotonic() + EMPTY_WITHIN_S
    while group.exists():
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline_s:
                return
            time.sleep(0.05)
