"""The campaigns on a whole running cluster, by name; their table is in `tests.faults.real.campaigns`.

Refuses to do: the faults themselves.
"""

import contextlib
import time
from typing import TYPE_CHECKING

from tests.faults.real.cluster.catalogue import Catalogue
from tests.faults.real.cluster.clocks import Clocks
from tests.faults.real.cluster.clocksteps import Steps
from tests.faults.real.cluster.cuts import Cuts, open_disks
from tests.faults.real.cluster.gateways import Gateways
from tests.faults.real.cluster.kills import Kills
from tests.faults.real.cluster.nets import open_nets
from tests.faults.real.cluster.partitions import Partitions
from tests.faults.real.cluster.proxies import Proxies
from tests.faults.real.cluster.rot import NODE as ROT_NODE
from tests.faults.real.cluster.rot import Rot
from tests.faults.real.cluster.running import open_running
from tests.faults.real.cluster.site import Site
from tests.faults.real.cluster.spread import WORKSTATION
from tests.faults.real.cluster.upgrades import Upgrades
from tests.free import free_port

if TYPE_CHECKING:
    from tests.faults.real.campaigns import Task

JUDGED_EVERY = 250
CUT_OBJECTS = 150  # that are stored between two cuts, at most
ROT_OBJECTS = 8_000  # then the load ends: every pass of the scrubber reads them all
LONG = 20  # partitions, of which some last long
KILLS_SHARE = 4  # of a life's promises there is one kill in a cluster: 100 objects a kill in the long form


def cluster_kills(task: "Task") -> None:
    """Until as many processes were killed as there are numbers, and enough was acknowledged meanwhile."""
    seed, objects = task.totals.seed, len(task.numbers) * task.promises_max // KILLS_SHARE
    site = Site(task.work / "data", nodes=4, replicas=2)
    with open_running(
        site, task.work, task.journal, task.totals, at_once=4, count=250, first=task.numbers.start
    ) as now:
        now.load.begin()
        kills, number, judged = Kills(now, seed), task.numbers.start, 0
        while task.totals.fired < len(task.numbers) or task.totals.acknowledged < objects:
            task.totals.fired += kills.kill(number)
            task.totals.runs += 1
            number += 1
            if task.totals.fired - judged >= JUDGED_EVERY:
                judged = task.totals.fired
                kills.rest()
                now.judge(f"up to kill {number}", whole=False)
                now.go_on_after_judgement()
        kills.rest()
        now.judge("at the end", whole=True)
    task.totals.more |= {"killed": kills.counts, "pauses": kills.pauses}


def cluster_cuts(task: "Task") -> None:
    """One cut for each number; a node's disk has room for what a long campaign leaves on it."""
    seed, first = task.totals.seed, task.numbers.start
    folders = ["gateway", "agent", *(f"nodes/node-{number + 1}" for number in range(3))]
    data = task.work / "data"
    with contextlib.ExitStack() as stack:
        disks = stack.enter_context(open_disks(task.work, data, folders, objects=len(task.numbers) * CUT_OBJECTS))
        site = Site(data, nodes=3, replicas=2)
        for disk in disks.values():
            disk.sync()
        now = stack.enter_context(
            open_running(site, task.work, task.journal, task.totals, at_once=2, count=60, first=first)
        )
        now.load.begin()
        cuts = Cuts(now, disks, seed)
        for number in task.numbers:
            task.totals.fired += cuts.cut(number)
            task.totals.runs += 1
            if (number + 1 - first) % JUDGED_EVERY == 0:
                now.judge(f"up to cut {number}", whole=False)
                now.go_on_after_judgement()
        now.judge("at the end", whole=True)
        task.totals.more |= {"cut": cuts.counts}


def catalogue(task: "Task") -> None:
    """One loss for each number."""
    site = Site(task.work / "data", nodes=3, replicas=2)
    first = task.numbers.start
    with open_running(site, task.work, task.journal, task.totals, at_once=2, count=60, first=first) as now:
        now.load.begin()
        losses = Catalogue(now, task.work, task.totals.seed)
        for number in task.numbers:
            losses.lose(number)
            task.totals.runs += 1
            task.totals.fired += 1
        now.judge("at the end", whole=True)
    task.totals.more |= {"losses": losses.counts, "rebuilt_s_max": losses.rebuilt_s_max}


def rot(task: "Task") -> None:
    """One replica for each number."""
    first = task.numbers.start
    site = Site(task.work / "data", nodes=3, replicas=2, node=ROT_NODE)
    with open_running(site, task.work, task.journal, task.totals, at_once=2, count=250, first=first) as now:
        now.load.begin()
        rotting = Rot(now, task.totals.seed)
        for number in task.numbers:
            if now.load.flowing and len(now.load.acknowledged) > ROT_OBJECTS:
                now.load.flowing = False
                now.load.stop_modality()
            rotting.rot(number)
            task.totals.runs += 1
            task.totals.fired += 1
        rotting.wait()
        now.judge("at the end", whole=True)
    quarantined = sum(1 for _ in site.data.glob("nodes/*/quarantine/*"))
    if quarantined != task.totals.fired:
        task.totals.note("at the end", [f"{task.totals.fired} replicas rotted, {quarantined} are in quarantine"])
    task.totals.more |= {
        "changes": rotting.counts,
        "early": rotting.early,
        "healed": rotting.healed,
        "healed_s_max": rotting.healed_s_max,
    }


def partitions(task: "Task") -> None:
    """One partition for each number."""
    seed, first = task.totals.seed, task.numbers.start
    machines = ["gateway", WORKSTATION, *(f"node-{number + 1}" for number in range(3))]
    with contextlib.ExitStack() as stack:
        nets = stack.enter_context(open_nets(machines))
        site = Site(task.work / "data", nodes=3, replicas=2, nets=nets, silent_after_s=5.0, replica_grace_s=1.0)
        now = stack.enter_context(
            open_running(site, task.work, task.journal, task.totals, at_once=2, count=60, first=first)
        )
        now.load.begin()
        cuts = Partitions(now, nets, seed, is_short=len(task.numbers) < LONG)
        for number in task.numbers:
            cuts.part(number)
            task.totals.runs += 1
            task.totals.fired += 1
        now.judge("at the end", whole=True)
        task.totals.more |= {"partitions": cuts.counts, "acknowledged_meanwhile": cuts.during}


def upgrades(task: "Task") -> None:
    """One rolling upgrade for each number, and a second gateway before it."""
    first = task.numbers.start
    site = Site(task.work / "data", nodes=3, replicas=2)
    with open_running(site, task.work, task.journal, task.totals, at_once=2, count=150, first=first) as now:
        now.load.begin()
        gateways, rolling = Gateways(now, task.totals.seed), Upgrades(now, task.totals.seed)
        for number in task.numbers:
            gateways.try_second(number)
            rolling.upgrade(number)
            task.totals.runs += 1
            task.totals.fired += 1
        now.judge("at the end", whole=True)
    task.totals.more |= {
        "restarts": rolling.restarts,
        "second_gateways": len(task.numbers),
        "stopped_s_max": rolling.stopped_s_max,
        "served_again_s_max": rolling.served_s_max,
    }


def clocks(task: "Task") -> None:
    """One step for each number."""
    first = task.numbers.start
    machines = Clocks()
    site = Site(task.work / "data", nodes=3, replicas=2, clocks=machines)
    with open_running(site, task.work, task.journal, task.totals, at_once=2, count=60, first=first) as now:
        now.load.begin()
        steps = Steps(now, machines, task.totals.seed)
        for number in task.numbers:
            steps.step(number)
            task.totals.runs += 1
            task.totals.fired += 1
        task.totals.note("commands", steps.unclear())
        now.judge("at the end", whole=True)
    task.totals.more |= {"steps": steps.counts, "restarts": steps.restarts}


def damage(task: "Task") -> None:
    """As many transfers as there are numbers over links that damage what passes: half of them without TLS."""
    numbers = len(task.numbers)
    for plain, count in ((True, numbers - numbers // 2), (False, numbers // 2)):
        if count:
            _damage(task, plain=plain, count=count)


def _damage(task: "Task", *, plain: bool, count: int) -> None:
    work = task.work / ("plain" if plain else "tls")
    work.mkdir()
    first = task.numbers.start + 100_000 * plain
    site = Site(work / "data", nodes=3, replicas=2, plain=plain)
    listeners = {name: free_port() for name in site.node_ports}
    for name, port in listeners.items():
        site.advertise(name, port)
    proxies = Proxies(list(site.node_ports.values()), list(listeners.values()), task.totals.seed)
    with (
        contextlib.closing(proxies),
        open_running(site, work, task.journal, task.totals, at_once=3, count=30, first=first) as now,
    ):
        now.load.begin()
        proxies.damage(on=True)
        deadline_s = time.monotonic() + 60 + 10 * count
        while now.load.done < count and time.monotonic() < deadline_s:
            now.go_on(0.05)
        if now.load.done < count:
            task.totals.note("damage", [f"{now.load.done} of {count} transfers ended"])
        proxies.damage(on=False)
        now.judge("at the end, plain" if plain else "at the end", whole=True)
    counts = proxies.counts()
    task.totals.runs += now.load.done
    task.totals.fired += sum(counts.values())
    task.totals.more["damaged_plain" if plain else "damaged_tls"] = counts
