"""On which host each machine is started: as evenly as the room allows, a pure function.

Machines go one after the other to the host that has the fewest of ours, among those that still have the memory and the
storage; ties by free memory, then by id, so that the same view gives the same answer. Refuses to do: moving what runs.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from xen.observed import Host, Machine, Pool, Power, Storage
from xen.wanted import Wanted

DRIVE_BYTES: Final = 4 << 20  # room for a first-boot drive, whatever unit the storage rounds to


class Place(msgspec.Struct, frozen=True):
    """Where a machine may go: hosts (ids), the best first, and the storage of the best."""

    host_ids: tuple[str, ...]
    host_name: str
    storage_id: str


class Spread:
    """The hosts' room, and what was given away of it so far.

    `counted`: the machines that stay; `freed`: those that are removed before any is made.
    """

    def __init__(self, wanted: Wanted, pool: Pool, *, counted: Iterable[Machine], freed: Iterable[Machine]) -> None:
        self._wanted = wanted
        self._need_bytes = wanted.memory_bytes + pool.overhead_bytes
        self.storage = named_storage(wanted, pool)
        self._hosts = {host.host_id: host for host in usable_hosts(pool, self.storage.values())}
        self._memory = {key: host.memory_free_bytes for key, host in self._hosts.items()}
        self._room = {each.storage_id: each.free_bytes for each in self.storage.values()}
        self._count = dict.fromkeys(self._hosts, 0)
        for machine in counted:
            if machine.power != Power.HALTED and machine.host_id in self._count:
                self._count[machine.host_id] += 1
        for machine in freed:
            self._free(machine)

    def take(self, *, disk_bytes: int, on_storage: Collection[str] = ()) -> Place | None:
        """Return a place for one more machine that needs `disk_bytes` of new room, and give it away; None: no room."""
        fitting = [key for key in self._hosts if self._fits(key, disk_bytes, on_storage)]
        if not fitting:
            return None
        ranked = sorted(fitting, key=lambda key: (self._count[key], -self._memory[key], key))
        best = ranked[0]
        self._count[best] += 1
        self._memory[best] -= self._need_bytes
        storage_id = self._storage_of(best).storage_id
        self._room[storage_id] -= disk_bytes
        alike = tuple(key for key in ranked if self._storage_of(key).storage_id == storage_id)
        return Place(alike, self._hosts[best].name, storage_id)

    def memory_slots(self) -> int:
        """Return how many more machines the hosts' memory takes, whatever the storage."""
        return sum(self._slots(key) for key in self._hosts)

    def room_slots(self, disk_bytes: int) -> int:
        """Return how many more disks the storage takes, whatever the memory."""
        return sum(max(0, room) // max(1, disk_bytes) for room in self._room.values())

    def _free(self, machine: Machine) -> None:
        if machine.storage_id in self._room:
            self._room[machine.storage_id] += machine.disk_bytes
        if machine.power != Power.HALTED and machine.host_id in self._memory:
            self._memory[machine.host_id] += machine.memory_bytes

    def _slots(self, key: str) -> int:
        slots = max(0, self._memory[key]) // self._need_bytes
        most = self._wanted.per_host_max
        return min(slots, max(0, most - self._count[key])) if most else slots

    def _fits(self, key: str, disk_bytes: int, on_storage: Collection[str]) -> bool:
        storage = self._storage_of(key)
        near = not on_storage or storage.storage_id in on_storage
        return near and self._slots(key) > 0 and self._room[storage.storage_id] >= disk_bytes

    def _storage_of(self, key: str) -> Storage:
        return self.storage[key]


def storage_of(machine: Machine) -> frozenset[str]:
    """Return where a machine's disk lies; nothing where that is not known."""
    return frozenset({machine.storage_id} - {""})


def named_storage(wanted: Wanted, pool: Pool) -> Mapping[str, Storage]:
    """Return, for each host, the storage of the wanted name that it reaches (the one with the most room)."""
    named = sorted((each for each in pool.storage if each.name == wanted.storage), key=lambda each: each.free_bytes)
    return {host_id: each for each in named for host_id in each.host_ids}


def usable_hosts(pool: Pool, storage: Iterable[Storage]) -> list[Host]:
    """Return the hosts that run, take machines and reach the storage."""
    near = frozenset[str]().union(*(each.host_ids for each in storage))
    return [host for host in pool.hosts if host.alive and host.open and host.host_id in near]
