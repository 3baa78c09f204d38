"""One host as it is seen: what libvirt answers, as values of `xen.observed`.

Refuses to do: putting hosts together (`xen.libvirt.pool`), changing anything.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from transfer.errors import FascicleError, NotStoredError
from xen.libvirt import definitions, marks, storage
from xen.libvirt.errors import is_unsupported, named
from xen.observed import Disk, Machine, Power

POWERS: Final = {
    libvirt.VIR_DOMAIN_NOSTATE: Power.RUNNING,
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.RUNNING,  # it is on its way, and still there
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.SUSPENDED,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.HALTED,
    libvirt.VIR_DOMAIN_CRASHED: Power.HALTED,
}
SOURCES: Final = (libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP)
AGENT: Final = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
MIB: Final = 1 << 20


class TemplateSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that is not ours and is halted: nodes can be made from it."""

    name: str
    disk_bytes: int
    storage_id: str


class StorageSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A storage pool as one host sees it."""

    storage_id: str
    name: str
    free_bytes: int
    total_bytes: int
    volumes: tuple[str, ...]


class HostSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one host that answers."""

    memory_free_bytes: int
    memory_total_bytes: int
    storage: tuple[StorageSeen, ...]
    networks: tuple[str, ...]
    templates: tuple[TemplateSeen, ...]
    machines: tuple[Machine, ...]


def read_host(connection: Any, host_id: str, cluster: str) -> HostSeen:
    """Read all that concerns us on one host.

    Raises:
        FascicleError: libvirt's answer.
    """
    seen = list(domains(connection))
    total, free = read_memory(connection, (definition for _, definition, power in seen if power != Power.HALTED))
    ids = {pool.name(): storage.id_of(host_id, pool.name(), shared) for pool, _, shared in storage.pools(connection)}
    machines, templates = [], []
    for domain, definition, power in seen:
        mark = marks.read(definition, cluster)
        size, storage_id = _system_disk(connection, definition, ids)
        if mark is not None:
            machines.append(
                Machine(
                    name=mark.name,
                    number=mark.number,
                    machine_id=mark.uuid,
                    stage=mark.stage,
                    power=power,
                    host_id=host_id,
                    storage_id=storage_id,
                    address=address(domain) if power == Power.RUNNING else "",
                    vcpus=definitions.vcpus(definition),
                    memory_bytes=definitions.memory_bytes(definition),
                    disk_bytes=size,
                    revision=mark.revision,
                )
            )
        elif power == Power.HALTED and not marks.is_marked(definition):
            templates.append(TemplateSeen(name=domain.name(), disk_bytes=size, storage_id=storage_id))
    return HostSeen(
        memory_free_bytes=free,
        memory_total_bytes=total,
        storage=tuple(_storage(connection, host_id)),
        networks=tuple(_networks(connection)),
        templates=tuple(templates),
        machines=tuple(machines),
    )


def domains(connection: Any) -> Iterator[tuple[Any, ET.Element, Power]]:
    """Yield each machine of a host with its definition (as it will be started next) and its power."""
    with named("listing machines"):
        found = connection.listAllDomains()
    for domain in found:
        try:
            yield domain, definition_of(domain), power_of(domain)
        except NotStoredError:
            continue  # gone meanwhile


def definition_of(domain: Any) -> ET.Element:
    """Return a machine's definition, with what is secret in it: it goes back to libvirt whole."""
    with named("reading a machine"):
        try:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_DENIED:
                raise
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return definitions.parse(xml)


def power_of(domain: Any) -> Power:
    """Return whether a machine runs."""
    with named("reading a machine's state"):
        power = POWERS.get(domain.state()[0], Power.RUNNING)
        saved = power == Power.HALTED and domain.isPersistent() and domain.hasManagedSaveImage()
    return Power.SUSPENDED if saved else power


def address(domain: Any) -> str:
    """Return the address that a machine has by a lease, by its guest agent, or by the host's neighbours; '' unknown."""
    sources = list(SOURCES)
    with named("reading a machine"):
        if definitions.agent_answers(definitions.parse(domain.XMLDesc())):
            sources.insert(1, AGENT)
    for source in sources:
        try:
            with named("asking for a machine's address"):
                found = first_address(domain.interfaceAddresses(source))
        except FascicleError:
            continue  # this source does not know it
        if found:
            return found
    return ""


def first_address(interfaces: Any) -> str:
    """Return the first address that others can reach, IPv4 before IPv6; '' if there is none."""
    every = [each for name, card in sorted((interfaces or {}).items()) if name != "lo" for each in card["addrs"] or ()]
    usable = [each for each in every if not each["addr"].startswith(("127.", "169.254.", "fe80:", "::1"))]
    return min(usable, key=lambda each: int(each["type"]))["addr"] if usable else ""


def loose(seen: StorageSeen, cluster: str, machines: Iterable[Machine]) -> list[Disk]:
    """Return the first-boot drives whose machine is gone. A node's own disk is never loose: it has data."""
    known = {(each.name, each.machine_id[:8]) for each in machines}
    owners = {volume: marks.drive_owner(volume, cluster) for volume in seen.volumes}
    return [
        Disk(disk_id=f"{seen.storage_id}#{volume}", name=volume)
        for volume, owner in sorted(owners.items())
        if owner[0] and owner not in known
    ]


def read_memory(connection: Any, running: Iterable[ET.Element]) -> tuple[int, int]:
    """Return a host's memory, and what is free of it: the less of what is not promised to `running` and not used.

    Raises:
        FascicleError: libvirt's answer.
    """
    with named("reading the host's memory"):
        total = connection.getInfo()[1] * MIB
    free = total - sum(definitions.memory_bytes(each) for each in running)
    try:
        with named("reading the host's free memory"):
            if connection.getType() == "Xen":
                return total, min(free, connection.getFreeMemory())
            figures = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except FascicleError as error:
        if not is_unsupported(error):
            raise
        return total, max(0, free)
    unused = sum(figures.get(name, 0) for name in ("free", "buffers", "cached")) << 10
    return total, max(0, min(free, unused))


def _system_disk(connection: Any, definition: ET.Element, ids: dict[str, str]) -> tuple[int, str]:
    paths = definitions.disk_paths(definition)
    found = storage.where(connection, paths[0]) if paths else None
    return (found[1], ids.get(found[0].name(), "")) if found is not None else (0, "")


def _storage(connection: Any, host_id: str) -> Iterator[StorageSeen]:
    for pool, _, shared in storage.pools(connection):
        with named(f"reading the storage pool {pool.name()}"):
            pool.refresh()
            _, capacity, _, available = pool.info()
            volumes = tuple(sorted(pool.listVolumes()))
        yield StorageSeen(
            storage_id=storage.id_of(host_id, pool.name(), shared),
            name=pool.name(),
            free_bytes=available,
            total_bytes=capacity,
            volumes=volumes,
        )


def _networks(connection: Any) -> list[str]:
    with named("listing networks"):
        found = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
        return sorted(each.name() for each in found)
