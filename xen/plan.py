"""The plan: what is wanted and what is seen -> steps in order. Pure; the same view gives the same plan.

A plan is only a proposal for this moment: after any of its steps, or a crash between two, the next view gives a plan
that goes on from there, and when all is as wanted the plan is empty. What keeps it from doing harm:
* a node that has ever been started leaves only by drain, whatever the reason;
* what cannot be seen is not gone: a machine on a dead host is replaced after the grace time, and is itself removed only
  when the host is back and nothing on it is needed;
* a node that is silent in a machine that runs is not replaced: it may be the gateway that cannot hear.
Refuses to do: asking anybody, clocks.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Final

from xen.actions import Action, Await, Begin, Configure, Destroy, DestroyDisk, Leave, Make, Plan, Retire, Start
from xen.cloud import ABSENT, Node
from xen.observed import Machine, Pool, Power, Stage
from xen.room import check_names, new_disk_bytes, shortage
from xen.spread import Place, Spread, storage_of
from xen.wanted import Wanted, number_of

PROGRESS: Final = {stage: rank for rank, stage in enumerate(Stage)}
NEVER_STARTED: Final = frozenset({Stage.CLONED, Stage.CONFIGURED})
HAS_DATA: Final = frozenset({Stage.SERVING, Stage.LEAVING})
RANK: Final = (
    {Stage.CONDEMNED: -1}
    | {each: rank for each, rank in PROGRESS.items() if each != Stage.CONDEMNED}
    | {Stage.SERVING: len(PROGRESS)}
)
ON_A_HOST: Final = frozenset({Power.RUNNING, Power.PAUSED})
AS_IT_IS: Final = frozenset({Power.RUNNING, Power.UNKNOWN})


def make_plan(
    wanted: Wanted, pool: Pool, nodes: Mapping[str, Node], *, partial: bool = False, upgrade: bool = False
) -> Plan:
    """Return the steps from here to what is wanted.

    `partial`: with too little room do what fits, and note the rest. `upgrade`: replace nodes of another revision, one
    at a time.

    Raises:
        SettingsError: the pool has no such template, storage or network.
        FullError: too little room or memory; by how much.
    """
    return _Planner(wanted, pool, nodes).plan(partial=partial, upgrade=upgrade)


class _Planner:
    def __init__(self, wanted: Wanted, pool: Pool, nodes: Mapping[str, Node]) -> None:
        self._wanted, self._pool, self._nodes = wanted, pool, nodes
        self._template, self._network_id = check_names(wanted, pool)
        self._alive = {host.host_id for host in pool.hosts if host.alive}
        self._notes: list[str] = []
        ours = [each for each in pool.machines if number_of(each.name, wanted.prefix) is not None]
        self._foreign = [each for each in pool.machines if each not in ours]
        best, doubles = _without_doubles(ours)
        self._doubles = [each for each in doubles if each.stage not in HAS_DATA]
        for each in doubles:
            if each.stage in HAS_DATA:
                self._notes.append(f"there are two machines {each.name}, and both may hold objects; look at them")
        self._over = [each for each in best if each.stage in (Stage.RAW, Stage.CONDEMNED)]
        rest = [each for each in best if each not in self._over]
        self._used_numbers = {each.number for each in ours if each not in self._over or self._is_stranded(each)}
        self._leaving = [each for each in rest if each.stage == Stage.LEAVING]
        self._lost = [each for each in rest if each.stage != Stage.LEAVING and self._is_lost(each)]
        self._standing = [each for each in rest if each not in self._leaving and each not in self._lost]

    def plan(self, *, partial: bool, upgrade: bool) -> Plan:
        leavers = self._surplus(upgrade=upgrade)
        stay = [each for each in self._standing if each not in leavers]
        missing = max(0, self._wanted.count - len(stay)) + self._one_more(stay, upgrade=upgrade)
        never_started = [each for each in leavers if each.stage in NEVER_STARTED]
        removals = [*self._removals(), *self._destroy(never_started, "more than are wanted")]
        drained = [*self._drain(leavers, never_started), *self._drain_lost(), *self._go_on_leaving()]
        made = self._place(stay, never_started, missing, partial=partial)
        self._look_around(stay)
        ordered = sorted([*removals, *made, *drained], key=lambda each: each.phase)
        return Plan(actions=tuple(ordered), notes=tuple(self._notes))

    # What is wrong with a machine

    def _is_stranded(self, machine: Machine) -> bool:
        """Tell whether nothing can be done with it: it ran on a host that is gone, or its storage is out of reach."""
        if machine.power == Power.UNKNOWN or (machine.power in ON_A_HOST and machine.host_id not in self._alive):
            return True
        reach = [each.host_ids for each in self._pool.storage if each.storage_id == machine.storage_id]
        return bool(reach) and not any(host_ids & self._alive for host_ids in reach)

    def _is_lost(self, machine: Machine) -> bool:
        if not self._is_stranded(machine):
            return False
        node = self._node(machine)
        if node.state == "live":  # the pool cannot see its host, and yet the node works
            self._notes.append(f"{machine.name} serves, though the pool cannot reach its host")
            return False
        silent_s = node.silent_s if machine.stage == Stage.SERVING else self._wanted.grace_s
        if silent_s is None or silent_s < self._wanted.grace_s:
            self._notes.append(f"{machine.name} is out of reach; it is replaced after {self._wanted.grace_s:.0f} s")
            return False
        return True

    def _node(self, machine: Machine) -> Node:
        return self._nodes.get(machine.name, ABSENT)

    def _is_outdated(self, machine: Machine) -> bool:
        return machine.revision != self._wanted.revision

    # Fewer

    def _removals(self) -> Iterator[Action]:
        reasons = {Stage.RAW: "half made when a run was cut off", Stage.CONDEMNED: "nothing on it is needed any more"}
        for machine in sorted(self._over, key=_by_number):
            yield from self._destroy([machine], reasons[machine.stage])
        yield from self._destroy(self._doubles, "there is another of this name, which has come further")
        for disk in sorted(self._pool.loose_disks, key=lambda each: each.disk_id):
            yield DestroyDisk(name=disk.name, disk_id=disk.disk_id)

    def _destroy(self, machines: Iterable[Machine], reason: str) -> Iterator[Action]:
        for machine in machines:
            if self._is_stranded(machine):
                self._notes.append(f"{machine.name} is removed when its host is back ({reason})")
            else:
                enrolled = machine.stage == Stage.CONDEMNED and self._node(machine).state != "absent"
                yield Destroy(name=machine.name, machine_id=machine.machine_id, reason=reason, revoke=enrolled)

    def _surplus(self, *, upgrade: bool) -> list[Machine]:
        """Return those that leave because there are too many: the least finished, then from where most are."""
        counts = Counter(each.host_id for each in self._standing)
        left = list(self._standing)
        chosen: list[Machine] = []
        while len(left) > self._wanted.count:
            if upgrade and not all(self._serves(each) for each in left):
                break  # the newcomer serves before the one that it replaces leaves
            worst = min(left, key=lambda each: self._worth(each, counts, upgrade=upgrade))
            left.remove(worst)
            counts[worst.host_id] -= 1
            chosen.append(worst)
        return chosen

    def _worth(self, machine: Machine, counts: Mapping[str, int], *, upgrade: bool) -> tuple[object, ...]:
        kept = not (upgrade and self._is_outdated(machine))
        return kept, PROGRESS[machine.stage], self._serves(machine), -counts[machine.host_id], -machine.number

    def _serves(self, machine: Machine) -> bool:
        return machine.stage == Stage.SERVING and self._node(machine).state == "live"

    def _drain(self, leavers: Sequence[Machine], never_started: Sequence[Machine]) -> Iterator[Action]:
        for machine in leavers:
            if machine not in never_started:
                yield Leave(name=machine.name, reason="more than are wanted")
                yield from self._retire(machine)

    def _drain_lost(self) -> Iterator[Action]:
        for machine in self._lost:
            if machine.stage in NEVER_STARTED:
                self._notes.append(f"{machine.name} is removed when its host is back (it was never started)")
                continue
            yield Leave(name=machine.name, reason="its host is gone, and the grace time is over")
            yield from self._retire(machine)

    def _go_on_leaving(self) -> Iterator[Action]:
        for machine in self._leaving:
            if not self._node(machine).draining:
                yield Leave(name=machine.name, reason="an earlier run began with it")
            yield from self._retire(machine)

    def _retire(self, machine: Machine) -> Iterator[Action]:
        if self._is_stranded(machine):
            needed = self._node(machine).needed_objects
            last = f"; it holds the last replica of {needed} objects" if needed else ""
            self._notes.append(f"{machine.name} is removed when its host is back{last}")
            return
        if machine.power not in AS_IT_IS and self._is_needed(machine):
            yield from self._start([machine], Spread(self._wanted, self._pool, counted=self._standing, freed=()))
        yield Retire(name=machine.name, machine_id=machine.machine_id)

    def _is_needed(self, machine: Machine) -> bool:
        """Tell whether its node may have to run to be drained."""
        node = self._node(machine)
        return node.state != "absent" and (not node.draining or node.needed_objects > 0)

    # More

    def _one_more(self, stay: Sequence[Machine], *, upgrade: bool) -> int:
        if not upgrade or len(stay) != self._wanted.count:
            return 0
        return int(any(self._is_outdated(each) for each in stay) and all(self._serves(each) for each in stay))

    def _place(self, stay: Sequence[Machine], freed: Sequence[Machine], missing: int, *, partial: bool) -> list[Action]:
        gone = [each for each in [*self._over, *self._doubles, *freed] if not self._is_stranded(each)]
        halted = [each for each in stay if each.power not in AS_IT_IS and not self._is_stranded(each)]
        spread = Spread(self._wanted, self._pool, counted=stay, freed=gone)
        steps, unplaced = self._wake(sorted(halted, key=_by_number), spread)
        steps += self._await([each for each in stay if each.power == Power.RUNNING])
        for number in self._free_numbers(missing):
            place = spread.take(disk_bytes=new_disk_bytes(self._wanted), on_storage=self._clone_storage())
            if place is None:
                unplaced += 1
            else:
                steps += self._make(number, place)
        if unplaced:
            fresh = Spread(self._wanted, self._pool, counted=stay, freed=gone)
            short = shortage(
                self._wanted, self._pool, fresh, machines=missing + len(halted), disk_bytes=new_disk_bytes(self._wanted)
            )
            if not partial:
                raise short
            self._notes.append(short.message.replace("Nothing was done", "What fits is done"))
        return steps

    def _wake(self, halted: Sequence[Machine], spread: Spread) -> tuple[list[Action], int]:
        steps: list[Action] = []
        unplaced = 0
        for machine in halted:
            started = list(self._start([machine], spread))
            unplaced += not started
            steps += started
        return steps, unplaced

    def _start(self, machines: Sequence[Machine], spread: Spread) -> Iterator[Action]:
        for machine in machines:
            place = spread.take(disk_bytes=0, on_storage=storage_of(machine))
            if place is None:
                return
            if machine.stage in (Stage.SERVING, Stage.LEAVING):
                yield Start(name=machine.name, host_ids=place.host_ids, host_name=place.host_name)
            else:
                if machine.stage == Stage.CLONED:
                    yield Configure(name=machine.name, network_id=self._network_id)
                yield self._begin(machine.name, machine.number, place)
            if machine.stage != Stage.LEAVING:
                yield Await(name=machine.name)

    def _await(self, running: Sequence[Machine]) -> list[Action]:
        begun = [each for each in running if each.stage != Stage.SERVING]
        return [Await(name=each.name) for each in sorted(begun, key=_by_number)]

    def _make(self, number: int, place: Place) -> Iterator[Action]:
        name = self._wanted.name(number)
        yield Make(
            name=name,
            number=number,
            template_id=self._template.template_id,
            storage_id=place.storage_id,
            host_id=place.host_ids[0],
        )
        yield Configure(name=name, network_id=self._network_id)
        yield self._begin(name, number, place)
        yield Await(name=name)

    def _begin(self, name: str, number: int, place: Place) -> Begin:
        return Begin(name=name, number=number, host_ids=place.host_ids, host_name=place.host_name)

    def _free_numbers(self, missing: int) -> Iterator[int]:
        return islice((number for number in count(1) if number not in self._used_numbers), missing)

    def _clone_storage(self) -> frozenset[str]:
        """Where a clone can be: anywhere, or where it can share the template's disk."""
        return frozenset() if self._wanted.full_copy else self._template.also_on | {self._template.storage_id}

    # What somebody should know

    def _look_around(self, stay: Sequence[Machine]) -> None:
        for machine in stay:
            node = self._node(machine)
            if machine.stage == Stage.SERVING and machine.power == Power.RUNNING and node.state != "live":
                self._notes.append(f"{machine.name} runs, but its node is {node.state} at the gateway; look at it")
        if self._foreign:
            names = ", ".join(sorted(each.name for each in self._foreign))
            self._notes.append(f"of this cluster, but not named {self._wanted.prefix}NN, so left alone: {names}")


def _by_number(machine: Machine) -> int:
    return machine.number


def _without_doubles(machines: Iterable[Machine]) -> tuple[list[Machine], list[Machine]]:
    """Return the machine of each number that has come furthest, and the others."""
    best: dict[int, Machine] = {}
    others: list[Machine] = []
    for machine in sorted(machines, key=lambda each: (each.number, -RANK[each.stage], each.machine_id)):
        if machine.number in best:
            others.append(machine)
        else:
            best[machine.number] = machine
    return list(best.values()), others
