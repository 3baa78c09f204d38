"""A pool and a gateway as plain values, on which plans are carried out in small steps that a crash can come between."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from xen.actions import Action, Await, Begin, Configure, Destroy, DestroyDisk, Leave, Make, Plan, Retire, Start
from xen.cloud import Node
from xen.observed import GIB, MIB, Disk, Host, Machine, Network, Pool, Power, Stage, Storage, Template
from xen.spread import DRIVE_BYTES
from xen.wanted import Wanted

OVERHEAD = 16 * MIB


def wanted(**more: object) -> Wanted:
    """Return what S2 wants: 1 vCPU, 1 GB, 3 GB each."""
    usual = {
        "cluster": "radiology",
        "count": 3,
        "prefix": "node-",
        "template": "image",
        "storage": "shared",
        "network": "net",
        "vcpus": 1,
        "memory_bytes": GIB,
        "disk_bytes": 3 * GIB,
    }
    return msgspec.convert(usual | more, Wanted)


def hosts(count: int, memory: int = 64 * GIB) -> tuple[Host, ...]:
    """Return hosts that are alive and empty."""
    return tuple(
        Host(
            host_id=f"h{number}",
            name=f"host-{number}",
            alive=True,
            open=True,
            memory_free_bytes=memory,
            memory_total_bytes=memory,
        )
        for number in range(1, count + 1)
    )


@dataclass
class Imagined:
    """The state. Room and memory are counted, so that a plan that asks for too much fails here."""

    hosts: tuple[Host, ...] = field(default_factory=lambda: hosts(3))
    room: int = 1000 * GIB
    machines: dict[str, Machine] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    ids: int = 0
    destroyed: list[Machine] = field(default_factory=list)

    def pool(self) -> Pool:
        """Return what is seen."""
        alive = {host.host_id for host in self.hosts if host.alive}
        shown = tuple(
            msgspec.structs.replace(each, power=Power.UNKNOWN)
            if each.power in (Power.RUNNING, Power.PAUSED) and each.host_id not in alive
            else each
            for each in self.machines.values()
        )
        return Pool(
            hosts=tuple(msgspec.structs.replace(host, memory_free_bytes=self.free(host)) for host in self.hosts),
            storage=(
                Storage(
                    storage_id="s1",
                    name="shared",
                    free_bytes=self.room - sum(each.disk_bytes + DRIVE_BYTES for each in self.machines.values()),
                    total_bytes=self.room,
                    host_ids=frozenset(host.host_id for host in self.hosts),
                ),
            ),
            networks=(Network(network_id="n1", name="net"),),
            templates=(Template(template_id="t1", name="image", disk_bytes=2 * GIB, storage_id="s1"),),
            machines=shown,
            loose_disks=tuple(self.disks),
            overhead_bytes=OVERHEAD,
        )

    def free(self, host: Host) -> int:
        """Return a host's free memory."""
        here = [each for each in self.machines.values() if each.host_id == host.host_id and each.power == Power.RUNNING]
        return host.memory_total_bytes - sum(each.memory_bytes + OVERHEAD for each in here)

    def carry_out(self, plan: Plan) -> Iterator[Action]:
        """Carry a plan out; yields between any two small steps, where a crash may come."""
        for action in plan.actions:
            for _ in self.steps(action):
                yield action

    def steps(self, action: Action) -> Iterator[None]:
        """Carry one action out as the real steps do, in their order."""
        match action:
            case Make():
                assert action.name not in {each.name for each in self.machines.values() if each.stage != Stage.RAW}
                for key in [key for key, each in self.machines.items() if each.name == action.name]:
                    del self.machines[key]  # raw
                self.ids += 1
                key = f"m{self.ids}"
                self.machines[key] = Machine(
                    name=action.name,
                    number=action.number,
                    machine_id=key,
                    stage=Stage.RAW,
                    power=Power.HALTED,
                    storage_id=action.storage_id,
                    disk_bytes=2 * GIB,
                )
                yield
                self.change(action.name, stage=Stage.CLONED)
            case Configure():
                assert self.one(action.name).power == Power.HALTED
                self.change(action.name, memory_bytes=GIB, disk_bytes=3 * GIB)
                yield
                self.change(action.name, stage=Stage.CONFIGURED)
            case Begin() | Start():
                if isinstance(action, Begin):
                    self.disks.append(Disk(disk_id=f"d{self.ids}", name=action.name))
                    yield
                    self.disks.pop()
                    self.change(action.name, stage=Stage.BEGUN)
                    yield
                host = next(each for each in self.hosts if each.host_id == action.host_ids[0])
                assert host.alive and host.open and self.free(host) >= GIB + OVERHEAD
                self.change(action.name, power=Power.RUNNING, host_id=host.host_id)
                if isinstance(action, Start) and action.name in self.nodes:
                    self.hear(action.name)
            case Await():
                assert self.one(action.name).power == Power.RUNNING
                self.hear(action.name)
                yield
                if self.one(action.name).stage == Stage.BEGUN:
                    self.change(action.name, stage=Stage.SERVING)
            case Leave() if action.name not in self.nodes and self.one(action.name).stage == Stage.BEGUN:
                self.change(action.name, stage=Stage.CONDEMNED)
            case Leave():
                self.change(action.name, stage=Stage.LEAVING)
                yield
                if action.name in self.nodes:
                    self.nodes[action.name] = msgspec.structs.replace(self.nodes[action.name], draining=True)
            case Retire():
                node = self.nodes.get(action.name)
                if node is not None and node.state == "live":
                    node = self.nodes[action.name] = msgspec.structs.replace(
                        node, needed_objects=0
                    )  # drained meanwhile
                condemned = self.one(action.name).stage == Stage.CONDEMNED
                if not condemned and (node is None or not node.draining or node.needed_objects):
                    return
                self.change(action.name, stage=Stage.CONDEMNED)
                yield
                self.change(action.name, power=Power.HALTED)
                yield
                self.nodes.pop(action.name, None)
                yield
                self.destroy(action.machine_id)
            case Destroy():
                if action.revoke:
                    self.nodes.pop(action.name, None)
                self.destroy(action.machine_id)
            case DestroyDisk():
                self.disks = [each for each in self.disks if each.disk_id != action.disk_id]
            case _:
                raise AssertionError(action)
        yield

    def one(self, name: str) -> Machine:
        """Return the machine of this name; there is one."""
        (found,) = [each for each in self.machines.values() if each.name == name]
        return found

    def change(self, name: str, **values: object) -> None:
        """Change the machine of this name."""
        found = self.one(name)
        self.machines[found.machine_id] = msgspec.structs.replace(found, **values)

    def hear(self, name: str) -> None:
        """The node of this name is live."""
        before = self.nodes.get(name, Node(name=name, state="live"))
        self.nodes[name] = msgspec.structs.replace(before, state="live", silent_s=None)

    def destroy(self, machine_id: str) -> None:
        """Remove a machine; nothing that is needed may go with it."""
        machine = self.machines.pop(machine_id, None)
        if machine is None:
            return
        node = self.nodes.get(machine.name)
        alone = machine.name not in {each.name for each in self.machines.values()}
        assert node is None or not node.needed_objects or not alone, machine
        dead = {host.host_id for host in self.hosts if not host.alive}
        assert machine.power == Power.HALTED or machine.host_id not in dead, machine
        self.destroyed.append(machine)

    def serving(self) -> list[str]:
        """Return the names of the nodes that run, serve and stay, in order."""
        alive = {host.host_id for host in self.hosts if host.alive}
        return sorted(
            each.name
            for each in self.machines.values()
            if each.stage == Stage.SERVING and each.power == Power.RUNNING and each.host_id in alive
        )

    def kill_host(self, host_id: str, silent_s: float) -> None:
        """A host is gone, and its nodes are silent for so long."""
        self.hosts = tuple(
            msgspec.structs.replace(each, alive=False) if each.host_id == host_id else each for each in self.hosts
        )
        for machine in self.machines.values():
            if machine.host_id == host_id and machine.name in self.nodes:
                self.nodes[machine.name] = msgspec.structs.replace(
                    self.nodes[machine.name], state="silent", silent_s=silent_s
                )
