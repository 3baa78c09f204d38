"""`xen.backend.Backend` by libvirt: each method a few calls on one host, each of them harmless when it is made again.

A machine is of the host that it is defined on; what the interface says of a pool is put together from all hosts, and
from the memory of those that do not answer. Refuses to do: deciding; machines and volumes that do not bear our marks.
"""

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import msgspec

from transfer import log
from transfer.errors import ConflictError, FullError, NotStoredError, SettingsError, UnreachableError
from xen import lease
from xen.backend import Clone, Lock, Shape
from xen.libvirt import definitions, lock, marks, moving, storage
from xen.libvirt.errors import named
from xen.libvirt.found import Machines
from xen.libvirt.hosts import Connect, HostLink, connect, open_links
from xen.libvirt.marks import Mark
from xen.libvirt.memory import Memory
from xen.libvirt.pool import OVERHEAD_BYTES, assemble
from xen.libvirt.records import address, domains, power_of, read_memory
from xen.libvirt.sight import Sight, answers, write_mark
from xen.observed import Machine, Pool, Power, Stage
from xen.poolfile import LibvirtTable

logger = log.get_logger()
LOOK_EVERY_S: Final = 1.0
THREADS: Final = 16


@contextmanager
def open_backend(
    table: LibvirtTable, cluster: str, beside: Path, *, connect_to: Connect = connect, lease_s: float = lease.LEASE_S
) -> Iterator["LibvirtBackend"]:
    """Open the hosts of a pool file; `state` in it is relative to `beside`.

    Raises:
        SettingsError: two URIs are of one host.
    """
    links = open_links(table.uris, connect_to)
    memory = Memory(beside / Path(table.state or f"{cluster}.hosts.json").expanduser())
    try:
        yield LibvirtBackend(list(links.values()), cluster, memory, lease_s=lease_s)
    finally:
        for link in links.values():
            link.close()


class LibvirtBackend:
    """Hosts under libvirt; see `xen.backend.Backend` for what each method promises."""

    def __init__(self, links: Sequence[HostLink], cluster: str, memory: Memory, *, lease_s: float) -> None:
        self._links = {link.host_id: link for link in links}
        self._cluster, self._memory, self._lease_s = cluster, memory, lease_s
        self._machines = Machines(links, cluster)
        self._sight = Sight(links, cluster, memory, self._machines)

    def observe(self) -> Pool:
        """See `Backend`. A host that does not answer and was never seen is an error: what is on it nobody knows."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="libvirt") as threads:
            return assemble(list(threads.map(self._sight.look, self._links.values())), self._cluster)

    def open_lock(self, owner: str, wait_s: float) -> AbstractContextManager[Lock]:
        """See `Backend`."""
        return lock.hold_lock(list(self._links.values()), self._cluster, owner, wait_s, lease_s=self._lease_s)

    def clone(self, wish: Clone) -> None:
        """See `Backend`. Defined first, without a disk, so that a crash leaves nothing that is not found."""
        for found in self._machines.named(wish.name):
            if found.mark.stage != Stage.RAW:
                return
            self.destroy(found.mark.uuid)
        link = self._link(wish.host_id)
        template = self._template(link, wish.template_id)
        mark = Mark(
            cluster=self._cluster,
            name=wish.name,
            number=wish.number,
            uuid=str(uuid.uuid4()),
            stage=Stage.RAW,
            revision=wish.revision,
        )
        definition = definitions.from_template(template, mark)
        self._define(link, definition)
        path, form = definitions.template_disk(template)
        pool, kind = storage.find_pool(link.connection, link.host_id, wish.storage_id)
        wanted = storage.Wish(name=marks.disk_name(mark), template_path=path, form=form, full_copy=wish.full_copy)
        made = storage.make_disk(link.connection, pool, kind, wanted)
        definitions.set_disk(definition, template, made.path, made.form)
        self._define_marked(link, definition, mark, Stage.CLONED)

    def configure(self, name: str, shape: Shape) -> None:
        """See `Backend`."""
        found = self._machines.one(name)
        self._check_network(found.link, shape.network_id)
        for path in definitions.disk_paths(found.definition)[:1]:
            storage.grow(found.link.connection, path, shape.disk_bytes)
        definitions.set_shape(found.definition, shape)
        self._define_marked(found.link, found.definition, found.mark, Stage.CONFIGURED)

    def choose_host(self, name: str, preference: Iterable[str]) -> str:
        """See `Backend`. Only where the machine's disk is; the memory is what decides."""
        found = self._machines.one(name)
        need = definitions.memory_bytes(found.definition) + OVERHEAD_BYTES
        reasons = []
        for host_id in preference:
            link = self._link(host_id)
            if host_id != found.link.host_id and not moving.is_within_reach(found, link):
                reasons.append(f"{host_id}: its disk is not there")
                continue
            free = self._free_bytes(link)
            if free >= need:
                return host_id
            reasons.append(f"{host_id}: {free >> 20} MiB of memory are free, {need >> 20} MiB are needed")
        raise FullError(f"no host takes {name}: {'; '.join(reasons) or 'none was proposed'}")

    def attach_first_boot(self, name: str, image: bytes) -> None:
        """See `Backend`."""
        found = self._machines.one(name)
        paths = definitions.disk_paths(found.definition)
        place = storage.where(found.link.connection, paths[0]) if paths else None
        if place is None:
            raise ConflictError(f"{name} has no disk in any active storage pool of {found.link.host_id}")
        path = storage.write_drive(found.link.connection, place[0], marks.drive_name(found.mark), image)
        definitions.set_drive(found.definition, path)
        self._define_marked(found.link, found.definition, found.mark, Stage.BEGUN)

    def start(self, name: str, host_id: str) -> None:
        """See `Backend`."""
        found = self._machines.one(name)
        if found.power == Power.HALTED and found.link.host_id != host_id:
            found = moving.move_halted(found, self._link(host_id))
        for twin in self._machines.with_uuid(found.mark.uuid):
            if twin.link.host_id != found.link.host_id and twin.power == Power.HALTED:
                moving.undefine(twin.domain, name)  # a crash came while it went to another host
        with named(f"starting {name} on {found.link.host_id}"):
            match power_of(found.domain):
                case Power.HALTED | Power.SUSPENDED if found.domain.isActive() == 0:
                    found.domain.create()
                case Power.SUSPENDED:
                    found.domain.pMWakeup()
                case Power.PAUSED:
                    found.domain.resume()
                case _:
                    return

    def wait_for_address(self, name: str, timeout_s: float) -> str:
        """See `Backend`. Asked for again and again: leases and neighbours have no events."""
        deadline_s = time.monotonic() + timeout_s
        found = self._machines.one(name)
        while not (told := address(found.domain)):
            if time.monotonic() + LOOK_EVERY_S > deadline_s:
                raise UnreachableError(
                    f"{name} has no address within {timeout_s:.0f} s: no lease, no guest agent, no neighbour"
                )
            time.sleep(LOOK_EVERY_S)
        return told

    def mark(self, name: str, stage: Stage) -> None:
        """See `Backend`. On a host that does not answer it is remembered, and written when it does."""
        try:
            found = self._machines.one(name)
        except NotStoredError:
            if not self._sight.mark_silent(name, stage):
                raise
            return
        if found.mark.stage != stage:
            write_mark(found, msgspec.structs.replace(found.mark, stage=stage))

    def shut_down(self, name: str, timeout_s: float) -> None:
        """See `Backend`."""
        domain = self._machines.one(name).domain
        deadline_s = time.monotonic() + timeout_s
        try:
            with named(f"shutting {name} down"):
                if domain.isActive():
                    domain.shutdown()
        except ConflictError as error:
            logger.info("pool_guest_not_shut_down", machine=name, reason=error.message)
        while self._is_active(domain) and time.monotonic() < deadline_s:
            time.sleep(min(LOOK_EVERY_S, timeout_s / 4))
        self._switch_off(domain, name)

    def destroy(self, machine_id: str) -> None:
        """See `Backend`."""
        every = self._machines.with_uuid(machine_id)
        for found in every:
            self._switch_off(found.domain, found.mark.name)
        for found in every:
            storage.remove_all(found.link.connection, marks.stem(found.mark))
            moving.undefine(found.domain, found.mark.name)
        for link in self._links.values():
            known = {each.machine_id for each in self._memory.of(link.uri).machines}
            if machine_id in known and not every and not answers(link):
                raise ConflictError(f"{link.host_id} does not answer, and the machine may still be running there")

    def destroy_disk(self, disk_id: str) -> None:
        """See `Backend`."""
        storage_id, _, volume = disk_id.partition("#")
        if not marks.drive_owner(volume, self._cluster)[0]:
            raise ConflictError(f"the volume {volume} is not a first-boot drive of ours; it stays")
        for link in self._links.values():
            if answers(link):
                try:
                    pool, _ = storage.find_pool(link.connection, link.host_id, storage_id)
                except NotStoredError:
                    continue
                storage.remove(pool, volume)
                return

    def move(self, name: str, host_id: str) -> None:
        """See `Backend`."""
        moving.move_running(self._machines.one(name), self._link(host_id))

    def open_host(self, host_id: str, *, is_open: bool) -> None:
        """See `Backend`. libvirt has no such thing: it is remembered here, beside the pool file."""
        self._memory.change(self._link(host_id).uri, lambda before: msgspec.structs.replace(before, closed=not is_open))

    def snapshot(self, name: str, label: str) -> None:
        """See `Backend`. Inside the disk's own file (qcow2); of a running machine with its memory."""
        domain = self._machines.one(name).domain
        snapshot = ET.Element("domainsnapshot")
        ET.SubElement(snapshot, "name").text = label
        with named(f"making a snapshot of {name}"):
            if label not in domain.snapshotListNames():
                domain.snapshotCreateXML(ET.tostring(snapshot, encoding="unicode"), 0)

    def machine(self, name: str) -> Machine:
        """See `Backend`."""
        for each in self.observe().machines:
            if each.name == name and each.stage != Stage.RAW:
                return each
        raise NotStoredError(f"the hosts have no machine {name} of {self._cluster}")

    def _define_marked(self, link: HostLink, definition: ET.Element, mark: Mark, stage: Stage) -> None:
        definitions.set_mark(definition, msgspec.structs.replace(mark, stage=stage))
        self._define(link, definition)

    def _define(self, link: HostLink, definition: ET.Element) -> None:
        with named(f"defining {definition.findtext('name')} on {link.host_id}"):
            link.connection.defineXML(definitions.text(definition))

    def _free_bytes(self, link: HostLink) -> int:
        running = [definition for _, definition, power in domains(link.connection) if power != Power.HALTED]
        return read_memory(link.connection, running)[1]

    def _template(self, link: HostLink, name: str) -> ET.Element:
        for domain in self._machines.halted(link):
            if domain.findtext("name") == name:
                return domain
        raise SettingsError(f"the host {link.host_id} has no halted machine `{name}` (`nodes.template`)")

    def _check_network(self, link: HostLink, name: str) -> None:
        try:
            with named(f"looking for the network {name} on {link.host_id}"):
                link.connection.networkLookupByName(name)
        except NotStoredError as error:
            raise SettingsError(f"the host {link.host_id} has no network `{name}` (`nodes.network`)") from error

    def _switch_off(self, domain: Any, name: str) -> None:
        try:
            with named(f"switching {name} off"):
                if domain.isActive():
                    domain.destroy()
        except ConflictError:
            if self._is_active(domain):
                raise

    def _is_active(self, domain: Any) -> bool:
        with named("reading a machine's state"):
            return bool(domain.isActive())

    def _link(self, host_id: str) -> HostLink:
        if host_id not in self._links:
            raise NotStoredError(f"`libvirt.uris` has no host {host_id}; there are: {', '.join(sorted(self._links))}")
        return self._links[host_id]
