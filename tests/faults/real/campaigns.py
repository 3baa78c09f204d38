"""The campaigns: each takes a task, and notes in its totals what it found.

| name | what happens | runs, short | long: for each of `--long` |
|---|---|---|---|
| `sweep` | a fault at every system call of a part (`sweep.py`) | the store | every part, once |
| `kills` | kill -9 of a part at work (`lives.py`) | 200 | 1 |
| `cuts` | power cuts of a part, or of all on one disk, at work (`lives.py`) | 200 | 1 |
| `corruption` | changes to stored objects (`corruption.py`) | 1000 | 10 |
| `full` | disks without room (`full.py`) | 120 | 1/5 |
| `whole` | power cuts of a whole cluster (`whole.py`) | 1 | 1/100 |
| `cluster-kills` | kill -9 of every role of a running cluster under load (`cluster/kills.py`) | 20 | 1 |
| `cluster-cuts` | the power of a node, all nodes, gateway, agent, or all at once (`cluster/cuts.py`) | 8 | 1 |
| `catalogue` | a catalogue lost, or an old copy put back, under load (`cluster/catalogue.py`) | 2 | 1/50 |
| `rot` | replicas that rot on the disk, under load: to be found and repaired (`cluster/rot.py`) | 20 | 1 |
| `partitions` | parties that do not hear each other for a while (`cluster/partitions.py`) | 3 | 1/20 |
| `upgrades` | graceful restarts of all parts in turn, and a second gateway (`cluster/upgrades.py`) | 1 | 1/100 |
| `clocks` | clocks of single parties that jump by hours and days (`cluster/clocksteps.py`) | 2 | 1/50 |
| `damage` | transfers over links that damage what passes, with and without TLS (`cluster/proxies.py`) | 6 | 1/10 |

The runs of `kills`, `cuts` and `full` are shared by the parts in turn, as `runs_of` of the totals says; where parts die
together in a life, it is one run and counts for each of them.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from nodes.store import Store
from tests.faults.real.cluster.campaigns import (
    catalogue,
    clocks,
    cluster_cuts,
    cluster_kills,
    damage,
    partitions,
    rot,
    upgrades,
)
from tests.faults.real.corruption import Corruption
from tests.faults.real.full import Full
from tests.faults.real.journal import Journal
from tests.faults.real.lives import Lives
from tests.faults.real.loop import open_disk, reason_against
from tests.faults.real.role import Role
from tests.faults.real.sweep import Sweep
from tests.faults.real.totals import Totals
from tests.faults.real.traced import Point, run
from tests.faults.real.whole import open_whole

DISK_MIB: Final = 1_024


class Task(NamedTuple):
    """What a campaign is to do, and where; `work` is an empty folder."""

    roles: list[Role]
    numbers: range  # of the runs; of a sweep's points, those that there are
    work: Path
    journal: Journal
    totals: Totals
    promises_max: int  # of one life
    fault: str = ""  # of a sweep: this one alone
    call: str = ""
    every: int = 1  # of a sweep: one point in so many


def sweep(task: Task) -> None:
    """Every point of each role."""
    task.totals.more |= {"without": reason_against(), "faults": {}}
    with ExitStack() as stack:
        disk = None if reason_against() else stack.enter_context(open_disk(task.work / "disk", DISK_MIB))
        folder = disk.folder if disk else _made(task.work / "plain")
        for role in task.roles:
            _warm(role, task.work)
            each = Sweep(role, folder=folder, outside=task.work, disk=disk, journal=task.journal, totals=task.totals)
            points = [point for point in each.points() if _is_chosen(point, task)]
            _count_points(role, points, task.totals)
            for point in points[task.numbers.start : task.numbers.stop : task.every]:
                each.try_point(point)


def lives(task: Task) -> None:
    """`kills` and `cuts`."""
    with ExitStack() as stack:
        cuts = task.totals.campaign == "cuts"
        disk = stack.enter_context(open_disk(task.work / "disk", DISK_MIB)) if cuts else None
        folder = disk.folder if disk else _made(task.work / "plain")
        for role in task.roles:
            _warm(role, task.work)
        each = Lives(
            task.roles,
            folder=folder,
            disk=disk,
            journal=task.journal,
            totals=task.totals,
            promises_max=task.promises_max,
        )
        for number in task.numbers:
            each.live(number)
        each.finish()


def corruption(task: Task) -> None:
    """Of a store that is open."""
    with Store.open(task.work / "store", 0) as store:
        each = Corruption(store, task.journal, task.totals)
        for number in task.numbers:
            each.corrupt(number)
        each.finish()


def full(task: Task) -> None:
    """Of each role in turn."""
    for role in task.roles:
        _warm(role, task.work)
    each = Full(task.roles, folder=_made(task.work / "full"), journal=task.journal, totals=task.totals)
    for number in task.numbers:
        each.fill(number)


def whole(task: Task) -> None:
    """Of one cluster, again and again."""
    with open_whole(task.work, task.journal, task.totals) as cluster:
        for number in task.numbers:
            cluster.cut(number)


class Campaign(NamedTuple):
    """How to run one, and how often."""

    run: Callable[[Task], None]
    short: int
    long: float  # for each of what is asked


ALL: Final = 1_000_000
CAMPAIGNS: Final = {
    "sweep": Campaign(sweep, ALL, ALL),
    "kills": Campaign(lives, 200, 1),
    "cuts": Campaign(lives, 200, 1),
    "corruption": Campaign(corruption, 1000, 10),
    "full": Campaign(full, 120, 0.2),
    "whole": Campaign(whole, 1, 0.01),
    "cluster-kills": Campaign(cluster_kills, 20, 1),
    "cluster-cuts": Campaign(cluster_cuts, 8, 1),
    "catalogue": Campaign(catalogue, 2, 0.02),
    "rot": Campaign(rot, 20, 1),
    "partitions": Campaign(partitions, 3, 0.05),
    "upgrades": Campaign(upgrades, 1, 0.01),
    "clocks": Campaign(clocks, 2, 0.02),
    "damage": Campaign(damage, 6, 0.1),
}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _warm(role: Role, work: Path) -> None:
    """Import and compile in this process what each child would, and forget what that leaves on the disk."""
    if role.warm:
        role.prepare(work / f"warm-{role.name}")
        role.batch(work / f"warm-{role.name}", lambda _: None)
    else:
        run(lambda _: role.prepare(work / f"warm-{role.name}"))


def _is_chosen(point: Point, task: Task) -> bool:
    return task.fault in ("", point.fault) and task.call in ("", point.call)


def _count_points(role: Role, points: list[Point], totals: Totals) -> None:
    totals.more[role.name] = len(points)
    for point in points:
        totals.more["faults"][point.fault] = totals.more["faults"].get(point.fault, 0) + 1
