"""XenAPI's records as what planning looks at: pure functions of one view of the pool's database.

Refuses to do: calls.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from xen.observed import MIB, Disk, Host, Machine, Network, Pool, Power, Storage, Template
from xen.wanted import NUMBER_MAX
from xen.xenapi import marks

NULL: Final = "OpaqueRef:NULL"
OVERHEAD_BYTES: Final = 16 * MIB  # XenAPI's VM.memory_overhead of a machine with 1 GiB, rounded up
Records = Mapping[str, Mapping[str, Any]]


class Database(msgspec.Struct, frozen=True):
    """Every record of the classes that matter, by reference."""

    VM: Records
    VM_guest_metrics: Records
    VBD: Records
    VDI: Records
    SR: Records
    PBD: Records
    network: Records
    host: Records
    host_metrics: Records
    groups: bool


def pool(view: Database, cluster: str) -> Pool:
    """Return the pool as planning wants to see it."""
    ours = {key: each for key, each in view.VM.items() if is_ours(each, cluster)}
    return Pool(
        hosts=tuple(_hosts(view)),
        storage=tuple(_storage(view)),
        networks=tuple(Network(network_id=each["uuid"], name=each["name_label"]) for each in view.network.values()),
        templates=tuple(_templates(view, ours)),
        machines=tuple(machine(each, view, cluster) for each in ours.values()),
        loose_disks=tuple(_loose_disks(view, cluster)),
        groups=view.groups,
        overhead_bytes=OVERHEAD_BYTES,
    )


def is_ours(record: Mapping[str, Any], cluster: str) -> bool:
    """Tell whether a machine is ours, marked or still being made; snapshots of ours are not."""
    return not record["is_a_snapshot"] and (marks.is_marked(record, cluster) or marks.is_raw(record, cluster))


def machine(record: Mapping[str, Any], view: Database, cluster: str) -> Machine:
    """Return one machine of ours."""
    name = marks.name_of(record, cluster)
    digits = name[len(name.rstrip("0123456789")) :]
    disk = system_disk(record, view)
    host = view.host.get(record["resident_on"]) or view.host.get(record["affinity"])
    return Machine(
        name=name,
        number=min(int(digits or 0), NUMBER_MAX),
        machine_id=record["uuid"],
        stage=marks.stage_of(record, cluster),
        power=power(record, view),
        host_id=host["uuid"] if host else "",
        storage_id=view.SR[disk["SR"]]["uuid"] if disk and disk["SR"] in view.SR else "",
        address=address(view.VM_guest_metrics.get(record["guest_metrics"])),
        vcpus=int(record["VCPUs_max"]),
        memory_bytes=int(record["memory_dynamic_max"]),
        disk_bytes=int(disk["virtual_size"]) if disk else 0,
        revision=record["other_config"].get(marks.REVISION, ""),
    )


def power(record: Mapping[str, Any], view: Database) -> Power:
    """Return whether the machine runs; a machine that ran on a host that is gone may or may not."""
    state = Power(record["power_state"].lower())
    if state != Power.HALTED and record["resident_on"] != NULL and not _is_alive(record["resident_on"], view):
        return Power.UNKNOWN
    return state


def address(metrics: Mapping[str, Any] | None) -> str:
    """Return the first address that the guest tells, IPv4 before IPv6; '' if none."""
    networks: Mapping[str, str] = metrics["networks"] if metrics else {}
    found = {key: text for key, text in networks.items() if text}
    first = [found[key] for key in sorted(found) if key.endswith("/ip") or "/ipv4/" in key]
    return next(iter([*first, *(found[key] for key in sorted(found) if "/ipv6/" in key)]), "")


def system_disk(record: Mapping[str, Any], view: Database) -> Mapping[str, Any] | None:
    """Return the machine's first disk that is not a first-boot drive."""
    found = sorted(disks(record, view), key=lambda each: _device(view.VBD[each]["userdevice"]))
    return next((view.VDI[view.VBD[each]["VDI"]] for each in found if not _is_drive(each, view)), None)


def disks(record: Mapping[str, Any], view: Database) -> list[str]:
    """Return the references of the machine's block devices that have a disk in them."""
    return [
        each
        for each in record["VBDs"]
        if each in view.VBD and view.VBD[each]["type"] == "Disk" and _has_disk(each, view)
    ]


def drives(record: Mapping[str, Any], view: Database) -> list[str]:
    """Return the references of the block devices that hold a first-boot drive of ours."""
    return [each for each in record["VBDs"] if each in view.VBD and _has_disk(each, view) and _is_drive(each, view)]


def dangling(record: Mapping[str, Any], view: Database) -> list[str]:
    """Return the block devices whose disk is gone: a crash came between the two. The machine would not start."""
    named = [each for each in record["VBDs"] if each in view.VBD and view.VBD[each]["VDI"] != NULL]
    return [each for each in named if not _has_disk(each, view)]


def _has_disk(block_device: str, view: Database) -> bool:
    return view.VBD[block_device]["VDI"] in view.VDI


def _is_drive(block_device: str, view: Database) -> bool:
    return marks.DRIVE in view.VDI[view.VBD[block_device]["VDI"]]["other_config"]


def _device(text: str) -> int:
    return int(text) if text.isdecimal() else 99


def _is_alive(reference: str, view: Database) -> bool:
    metrics = view.host_metrics.get(view.host[reference]["metrics"]) if reference in view.host else None
    return metrics is not None and bool(metrics["live"])


def _hosts(view: Database) -> Iterable[Host]:
    for key, record in sorted(view.host.items()):
        metrics = view.host_metrics.get(record["metrics"])
        yield Host(
            host_id=record["uuid"],
            name=record["name_label"],
            alive=_is_alive(key, view),
            open=bool(record["enabled"]),
            memory_free_bytes=int(metrics["memory_free"]) if metrics else 0,
            memory_total_bytes=int(metrics["memory_total"]) if metrics else 0,
        )


def _storage(view: Database) -> Iterable[Storage]:
    for key, record in sorted(view.SR.items()):
        plugged = [each for each in view.PBD.values() if each["SR"] == key and each["currently_attached"]]
        yield Storage(
            storage_id=record["uuid"],
            name=record["name_label"],
            free_bytes=max(0, int(record["physical_size"]) - int(record["physical_utilisation"])),
            total_bytes=int(record["physical_size"]),
            host_ids=frozenset(view.host[each["host"]]["uuid"] for each in plugged if each["host"] in view.host),
        )


def _templates(view: Database, ours: Mapping[str, object]) -> Iterable[Template]:
    for key, record in sorted(view.VM.items()):
        if not record["is_a_template"] or record["is_a_snapshot"] or record["is_control_domain"] or key in ours:
            continue
        disk = system_disk(record, view)
        yield Template(
            template_id=record["uuid"],
            name=record["name_label"],
            disk_bytes=int(disk["virtual_size"]) if disk else 0,
            storage_id=view.SR[disk["SR"]]["uuid"] if disk and disk["SR"] in view.SR else "",
        )


def _loose_disks(view: Database, cluster: str) -> Iterable[Disk]:
    for record in view.VDI.values():
        config = record["other_config"]
        if config.get(marks.CLUSTER) != cluster or marks.DRIVE not in config or record["is_a_snapshot"]:
            continue  # a node's own disk that somebody took off may be the last of its kind: never ours to remove
        if not any(each in view.VBD for each in record["VBDs"]):
            yield Disk(disk_id=record["uuid"], name=record["name_label"])
