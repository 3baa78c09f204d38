"""Several hosts as one pool: a pure function of what each showed, or of what is remembered of those that do not answer.

Refuses to do: asking hosts.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from xen.libvirt.memory import HostMemory
from xen.libvirt.records import HostSeen, StorageSeen, TemplateSeen, loose
from xen.observed import MIB, Disk, Host, Machine, Network, Pool, Power, Storage, Template

# What a host needs for a machine beside the machine's own memory: page tables, the emulator. Measured with the node
# image at rest (qemu, resident beyond the guest's memory): some 60 MiB.
OVERHEAD_BYTES: Final = 96 * MIB


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One host: what it showed (None: it did not answer), and what is remembered of it."""

    host_id: str
    name: str
    seen: HostSeen | None
    memory: HostMemory


def assemble(looks: Iterable[Look], cluster: str) -> Pool:
    """Return the hosts as one pool."""
    looks = list(looks)
    machines = _machines(looks)
    return Pool(
        hosts=tuple(_host(each) for each in looks),
        storage=_storage(looks),
        networks=tuple(Network(network_id=name, name=name) for name in _networks(looks)),
        templates=_templates(looks),
        machines=machines,
        loose_disks=_loose(looks, machines, cluster),
        groups=False,
        overhead_bytes=OVERHEAD_BYTES,
    )


def remembered(seen: HostSeen, before: HostMemory) -> HostMemory:
    """Return what is to be remembered of a host that answered."""
    return msgspec.structs.replace(before, seen=True, machines=seen.machines, pending={})


def _host(look: Look) -> Host:
    seen = look.seen
    return Host(
        host_id=look.host_id,
        name=look.name,
        alive=seen is not None,
        open=not look.memory.closed,
        memory_free_bytes=seen.memory_free_bytes if seen is not None else 0,
        memory_total_bytes=seen.memory_total_bytes if seen is not None else 0,
    )


def _machines(looks: Iterable[Look]) -> tuple[Machine, ...]:
    """Return each machine once. One that is defined twice was on its way to another host; where it runs it is."""
    found: dict[str, Machine] = {}
    for look in looks:
        for each in look.seen.machines if look.seen is not None else _unknown(look.memory):
            if each.machine_id not in found or found[each.machine_id].power == Power.HALTED:
                found[each.machine_id] = each
    return tuple(sorted(found.values(), key=lambda each: (each.number, each.machine_id)))


def _unknown(memory: HostMemory) -> list[Machine]:
    def as_remembered(each: Machine) -> Machine:
        stage = memory.pending.get(each.machine_id, each.stage)
        return msgspec.structs.replace(each, power=Power.UNKNOWN, address="", stage=stage)

    return [as_remembered(each) for each in memory.machines]


def _storage(looks: Iterable[Look]) -> tuple[Storage, ...]:
    seen: dict[str, StorageSeen] = {}
    hosts: dict[str, set[str]] = {}
    for look in looks:
        for each in look.seen.storage if look.seen is not None else ():
            seen.setdefault(each.storage_id, each)
            hosts.setdefault(each.storage_id, set()).add(look.host_id)
    return tuple(
        Storage(
            storage_id=key,
            name=each.name,
            free_bytes=each.free_bytes,
            total_bytes=each.total_bytes,
            host_ids=frozenset(hosts[key]),
        )
        for key, each in seen.items()
    )


def _networks(looks: Iterable[Look]) -> list[str]:
    return sorted({name for look in looks if look.seen is not None for name in look.seen.networks})


def _templates(looks: Iterable[Look]) -> tuple[Template, ...]:
    """Return each template once: what has one name on several hosts is one template, each host using its own."""
    found: dict[str, list[TemplateSeen]] = {}
    for look in looks:
        for each in look.seen.templates if look.seen is not None else ():
            found.setdefault(each.name, []).append(each)
    return tuple(
        Template(
            template_id=name,
            name=name,
            disk_bytes=max(each.disk_bytes for each in seen),
            storage_id=max(each.storage_id for each in seen),
            also_on=frozenset(each.storage_id for each in seen) - {""},
        )
        for name, seen in found.items()
    )


def _loose(looks: Iterable[Look], machines: Iterable[Machine], cluster: str) -> tuple[Disk, ...]:
    """Return the drives of no machine, on no host, also of those that are silent."""
    machines = list(machines)
    seen = [each for look in looks if look.seen is not None for each in look.seen.storage]
    found = {disk.disk_id: disk for each in seen for disk in loose(each, cluster, machines)}
    return tuple(found.values())
