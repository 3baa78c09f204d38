"""What does not fit, said with by how much: the checks that come before anything is done.

Refuses to do: choosing places (`xen.spread`).
"""

from collections.abc import Iterable

from transfer.errors import FullError, SettingsError
from xen.observed import GIB, Pool, Template
from xen.spread import DRIVE_BYTES, Spread, named_storage, usable_hosts
from xen.wanted import Wanted


def check_names(wanted: Wanted, pool: Pool) -> tuple[Template, str]:
    """Return the template and the network's id.

    Raises:
        SettingsError: the pool has no such template, network or storage, or more than one; names those that there are.
    """
    template = _one("template", wanted.template, {each.template_id: each.name for each in pool.templates})
    network = _one("network", wanted.network, {each.network_id: each.name for each in pool.networks})
    storage = named_storage(wanted, pool)
    if not storage:
        raise SettingsError(_unknown("storage", wanted.storage, (each.name for each in pool.storage)))
    found = next(each for each in pool.templates if each.template_id == template)
    _check_template(wanted, found, {each.storage_id for each in storage.values()})
    return found, network


def shortage(wanted: Wanted, pool: Pool, spread: Spread, *, machines: int, disk_bytes: int) -> FullError:
    """Return the error that says by how much `machines` more, each with `disk_bytes` of new room, do not fit.

    `spread` has given nothing away yet.
    """
    need_bytes = wanted.memory_bytes + pool.overhead_bytes
    by_memory, by_room = spread.memory_slots(), spread.room_slots(disk_bytes) if disk_bytes else machines
    said = [
        *_short("of memory on the hosts", machines, by_memory, need_bytes),
        *_short(f"of room on {wanted.storage}", machines, by_room, disk_bytes),
    ]
    hosts = usable_hosts(pool, spread.storage.values())
    if wanted.per_host_max and wanted.per_host_max * len(hosts) < wanted.count:
        most = wanted.per_host_max * len(hosts)
        said.append(f"`per_host_max = {wanted.per_host_max}` allows {most} on {len(hosts)} hosts, not {wanted.count}")
    if not said:
        said.append("no host has both the memory and the storage for all of them")
    return FullError(f"{_machines(machines)} more than now: {'; '.join(said)}. Nothing was done")


def _short(what: str, machines: int, slots: int, each_bytes: int) -> list[str]:
    if slots >= machines:
        return []
    missing = (machines - slots) * each_bytes
    return [f"{_gib(missing)} {what} are missing ({_gib(machines * each_bytes)} needed, there is enough for {slots})"]


def _check_template(wanted: Wanted, template: Template, storage_ids: set[str]) -> None:
    if not template.storage_id:
        raise SettingsError(f"the template {template.name} has no disk to clone; make one from the node image")
    if template.disk_bytes > wanted.disk_bytes:
        raise SettingsError(
            f"the template {template.name} has a disk of {_gib(template.disk_bytes)}, more than `nodes.disk_mib` "
            f"({_gib(wanted.disk_bytes)}); disks only grow"
        )
    if not wanted.full_copy and not storage_ids & (template.also_on | {template.storage_id}):
        raise SettingsError(
            f"the template {template.name} is not on the storage {wanted.storage}, so clones cannot share its disk; "
            "say `nodes.full_copy = true`, or put the template there"
        )


def _one(what: str, name: str, known: dict[str, str]) -> str:
    found = [key for key, each in known.items() if name in (each, key)]
    if not found:
        raise SettingsError(_unknown(what, name, known.values()))
    if len(found) > 1:
        raise SettingsError(f"the pool has {len(found)} of the {what} `{name}`; name it by its id: {', '.join(found)}")
    return found[0]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    listed = ", ".join(sorted(set(known))[:20]) or "none"
    return f"the pool has no {what} `{name}` (`nodes.{what}`); there are: {listed}"


def _machines(count: int) -> str:
    return f"{count} machine{'s' if count != 1 else ''}"


def _gib(count_bytes: int) -> str:
    return f"{count_bytes / GIB:.1f} GiB"


def new_disk_bytes(wanted: Wanted) -> int:
    """Return the room that one more node may take: all of its disk in the end, also where it is shared at first."""
    return wanted.disk_bytes + DRIVE_BYTES
