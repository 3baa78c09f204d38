"""Machines of ours, found on whichever host they are defined.

Refuses to do: changing them.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from transfer.errors import ConflictError, NotStoredError, UnreachableError
from xen.libvirt import marks
from xen.libvirt.hosts import HostLink
from xen.libvirt.marks import Mark
from xen.libvirt.records import domains
from xen.observed import Power, Stage


class Found(msgspec.Struct, frozen=True):
    """A machine: its host, libvirt's handle, its definition and its mark."""

    link: HostLink
    domain: Any
    definition: ET.Element
    mark: Mark
    power: Power


class Machines:
    """The machines of one cluster on these hosts."""

    def __init__(self, links: Sequence[HostLink], cluster: str) -> None:
        self._links, self._cluster = links, cluster

    def one(self, name: str) -> Found:
        """Return the machine of this name that is past its making; the one that runs, if two hosts define it.

        Raises:
            NotStoredError: no host that answers has it.
        """
        found = [each for each in self.named(name) if each.mark.stage != Stage.RAW]
        if not found:
            raise NotStoredError(f"no host that answers has a machine {name} of {self._cluster}")
        return min(found, key=lambda each: each.power == Power.HALTED)

    def named(self, name: str) -> list[Found]:
        """Return every machine of ours of this name, in any stage."""
        return [each for link in self._links for each in self._on(link) if each.mark.name == name]

    def with_uuid(self, uuid: str) -> list[Found]:
        """Return the machine with this uuid, on every host that answers and defines it.

        Raises:
            ConflictError: it is there, and not ours.
        """
        found = [each for link in self._links for each in self.on(link, uuid)]
        for link in self._links if not found else ():
            self._check_foreign(link, uuid)
        return found

    def on(self, link: HostLink, uuid: str) -> list[Found]:
        """Return the machine with this uuid, if this host has it."""
        return [each for each in self._on(link) if each.mark.uuid == uuid]

    def halted(self, link: HostLink) -> Iterator[ET.Element]:
        """Yield the definitions of machines of a host that do not run and are no cluster's nodes."""
        for _, definition, power in domains(link.connection):
            if power == Power.HALTED and not marks.is_marked(definition):
                yield definition

    def _on(self, link: HostLink) -> list[Found]:
        try:
            seen = list(domains(link.connection))
        except UnreachableError:
            return []
        marked = [(marks.read(each[1], self._cluster), *each) for each in seen]
        return [Found(link, domain, definition, mark, power) for mark, domain, definition, power in marked if mark]

    def _check_foreign(self, link: HostLink, uuid: str) -> None:
        try:
            seen = list(domains(link.connection))
        except UnreachableError:
            return
        for domain, definition, _ in seen:
            if definition.findtext("uuid") == uuid:
                raise ConflictError(f"the machine {domain.name()} does not bear our marks; it stays")
