"""Machines from one host to another: running ones by migration, halted ones by their definition. Disks stay.

Refuses to do: copying disks, so it takes storage that both hosts reach.
"""

from typing import Any

import libvirt

from transfer.errors import ConflictError, FascicleError
from xen.libvirt import definitions, storage
from xen.libvirt.errors import is_unsupported, named
from xen.libvirt.found import Found
from xen.libvirt.hosts import HostLink
from xen.libvirt.records import power_of
from xen.observed import Power

FLAGS = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE


def is_within_reach(found: Found, link: HostLink) -> bool:
    """Tell whether a machine's disks lie on storage that this host reaches, too."""
    theirs = {shared for _, _, shared in storage.pools(link.connection) if shared}
    ids = {pool.name(): shared for pool, _, shared in storage.pools(found.link.connection)}
    for path in definitions.disk_paths(found.definition):
        place = storage.where(found.link.connection, path)
        if place is None or ids.get(place[0].name(), "") not in theirs:
            return False
    return True


def move_running(found: Found, link: HostLink) -> None:
    """Migrate a running machine, live; one that is there already stays.

    Raises:
        ConflictError: its disk is not there.
    """
    if found.link.host_id == link.host_id:
        return
    name = found.mark.name
    if found.power == Power.HALTED:
        raise ConflictError(f"{name} does not run; a halted machine goes with its start")
    if not is_within_reach(found, link):
        raise ConflictError(f"{name} cannot go to {link.host_id}: its disk is on storage of {found.link.host_id} alone")
    with named(f"moving {name} to {link.host_id}"):
        found.domain.migrate3(link.connection, {}, FLAGS)


def move_halted(found: Found, link: HostLink) -> Found:
    """Define a halted machine on this host and take it off the other; return it as it is now.

    In this order, so that it is never nowhere; a crash in between leaves it twice, which the next start ends.

    Raises:
        ConflictError: its disk is not there.
    """
    if not is_within_reach(found, link):
        raise ConflictError(f"{found.mark.name} cannot start on {link.host_id}: its disk is not there")
    with named(f"defining {found.mark.name} on {link.host_id}"):
        domain = link.connection.defineXML(definitions.text(found.definition))
    undefine(found.domain, found.mark.name)
    return Found(link, domain, found.definition, found.mark, power_of(domain))


def undefine(domain: Any, name: str) -> None:
    """Take a halted machine's definition off its host, with what libvirt itself keeps of it; disks stay."""
    with named(f"removing the definition of {name}"):
        flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE if domain.hasManagedSaveImage() else 0
        if definitions.parse(domain.XMLDesc()).find("os/nvram") is not None:
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        if _has_snapshots(domain):
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        domain.undefineFlags(flags)


def _has_snapshots(domain: Any) -> bool:
    try:
        with named("counting snapshots"):
            return bool(domain.snapshotNum())
    except FascicleError as error:
        if not is_unsupported(error):
            raise
        return False
