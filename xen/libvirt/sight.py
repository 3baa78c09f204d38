"""Looks at one host after the other, and keeps what was seen for the time when a host does not answer.

Marks of machines that are out of reach are kept, too, and written when their host is back. Refuses to do: guessing what
is on a host that was never seen.
"""

from collections.abc import Sequence
from functools import partial

import libvirt
import msgspec

from transfer import log
from transfer.errors import UnreachableError
from xen.libvirt import lock, marks
from xen.libvirt.errors import named
from xen.libvirt.found import Found, Machines
from xen.libvirt.hosts import HostLink
from xen.libvirt.marks import Mark
from xen.libvirt.memory import HostMemory, Memory
from xen.libvirt.pool import Look, remembered
from xen.libvirt.records import HostSeen, read_host
from xen.observed import Stage

logger = log.get_logger()


class Sight:
    """What is seen of these hosts, and remembered."""

    def __init__(self, links: Sequence[HostLink], cluster: str, memory: Memory, machines: Machines) -> None:
        self._links, self._cluster, self._memory, self._machines = links, cluster, memory, machines

    def look(self, link: HostLink) -> Look:
        """Return what a host shows, or what is remembered of it.

        Raises:
            UnreachableError: it does not answer and was never seen.
        """
        try:
            seen = read_host(link.connection, link.host_id, self._cluster)
            with named(f"reading the name of {link.host_id}"):
                name = link.connection.getHostname()
        except UnreachableError as error:
            memory = self._memory.of(link.uri)
            if not memory.seen:
                raise UnreachableError(
                    f"{error.message}; it was never seen, so nobody knows which machines it has: take it out of "
                    "`libvirt.uris`, or bring it back"
                ) from error
            logger.warning("pool_host_silent", host=link.host_id, reason=error.message)
            return Look(host_id=link.host_id, name=link.host_id, seen=None, memory=memory)
        seen = self._write_pending(link, seen)
        networks = tuple(each for each in seen.networks if not lock.is_lock(each))
        seen = msgspec.structs.replace(seen, networks=networks)
        memory = self._memory.change(link.uri, partial(remembered, seen))
        return Look(host_id=link.host_id, name=name, seen=seen, memory=memory)

    def mark_silent(self, name: str, stage: Stage) -> bool:
        """Keep a mark for a machine whose host does not answer; False if no such host is known to have it."""
        for link in self._links:
            for each in self._memory.of(link.uri).machines:
                if each.name == name and not answers(link):
                    self._memory.change(link.uri, partial(_with_pending, each.machine_id, stage))
                    return True
        return False

    def _write_pending(self, link: HostLink, seen: HostSeen) -> HostSeen:
        """Write the marks that were kept while the host was away."""
        pending = self._memory.of(link.uri).pending
        for each in seen.machines:
            for found in self._machines.on(link, each.machine_id) if each.machine_id in pending else ():
                write_mark(found, msgspec.structs.replace(found.mark, stage=pending[each.machine_id]))
        stages = {each.machine_id: pending.get(each.machine_id, each.stage) for each in seen.machines}
        machines = tuple(msgspec.structs.replace(each, stage=stages[each.machine_id]) for each in seen.machines)
        return msgspec.structs.replace(seen, machines=machines)


def write_mark(found: Found, mark: Mark) -> None:
    """Write a machine's mark, in one step, and nothing else of it.

    Raises:
        FascicleError: libvirt's answer.
    """
    with named(f"marking {mark.name}"):
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
        if found.domain.isActive():
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        found.domain.setMetadata(kind, marks.text(mark), marks.PREFIX, marks.NAMESPACE, flags)


def answers(link: HostLink) -> bool:
    """Tell whether a host can be reached now."""
    try:
        return link.connection is not None
    except UnreachableError:
        return False


def _with_pending(machine_id: str, stage: Stage, before: HostMemory) -> HostMemory:
    return msgspec.structs.replace(before, pending=before.pending | {machine_id: stage})
