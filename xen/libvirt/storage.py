"""Volumes of ours on a host's storage pools: disks shared with the template's or copied, and first-boot drives.

Refuses to do: volumes whose name is not ours; making pools.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from transfer.errors import ConflictError, FascicleError, NotStoredError, SettingsError
from xen.libvirt import marks
from xen.libvirt.definitions import parse
from xen.libvirt.errors import named

FILES: Final = frozenset({"dir", "fs", "netfs", "gluster"})  # pools that hold files, where qcow2 can share
SHARED: Final = frozenset({"netfs", "gluster", "rbd", "iscsi", "iscsi-direct", "sheepdog"})
CHUNK_BYTES: Final = 1 << 18


class Made(msgspec.Struct, frozen=True):
    """A volume that stands: where, and in what form."""

    path: str
    form: str


def pools(connection: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield each active storage pool of a host with its type and its id among all hosts' pools."""
    with named("listing storage pools"):
        found = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    for pool in found:
        try:
            with named(f"reading the storage pool {pool.name()}"):
                definition = parse(pool.XMLDesc())
        except NotStoredError:
            continue
        kind = definition.get("type", "")
        yield pool, kind, _shared_id(kind, definition)


def _shared_id(kind: str, definition: ET.Element) -> str:
    """Return what is the same on every host that has this pool; '' for a pool of one host's own."""
    source = definition.find("source")
    if kind not in SHARED or source is None:
        return ""
    keys = ("name", "path", "port")
    words = [each.get(key, "") for each in source.iter() for key in keys]
    return "|".join([kind, *filter(None, words), source.findtext("name") or ""])


def find_pool(connection: Any, host_id: str, storage_id: str) -> tuple[Any, str]:
    """Return the pool with this id and its type.

    Raises:
        NotStoredError: the host has no such pool that is active.
    """
    for pool, kind, shared in pools(connection):
        if storage_id == id_of(host_id, pool.name(), shared):
            return pool, kind
    raise NotStoredError(f"the host {host_id} has no active storage pool {storage_id}")


def id_of(host_id: str, name: str, shared: str) -> str:
    """Return a pool's id among all hosts' pools."""
    return shared or f"{host_id}/{name}"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A disk to be made out of the template's, which is at `template_path` in this form."""

    name: str
    template_path: str
    form: str
    full_copy: bool


def make_disk(connection: Any, pool: Any, kind: str, wish: Wish) -> Made:
    """Make a machine's disk.

    Raises:
        SettingsError: this storage cannot share the template's disk.
    """
    with named(f"reading the template's disk {wish.template_path}"):
        template = connection.storageVolLookupByPath(wish.template_path)
        capacity = template.info()[1]
    ours = "qcow2" if kind in FILES else "raw"
    if wish.full_copy:
        with named(f"copying the template's disk to {pool.name()}"):
            made = pool.createXMLFrom(_volume(wish.name, capacity, ours), template)
    elif kind in FILES:
        with named(f"making a disk on {pool.name()}"):
            made = pool.createXML(_volume(wish.name, capacity, ours, wish.template_path, wish.form))
    else:
        raise SettingsError(
            f"the storage {pool.name()} ({kind}) cannot share the template's disk; say `nodes.full_copy = true`"
        )
    return Made(made.path(), ours)


def grow(connection: Any, path: str, capacity_bytes: int) -> None:
    """Let a disk have this size; one that is larger stays as it is."""
    with named(f"growing the disk {path}"):
        volume = connection.storageVolLookupByPath(path)
        if volume.info()[1] < capacity_bytes:
            volume.resize(capacity_bytes)


def write_drive(connection: Any, pool: Any, name: str, image: bytes) -> str:
    """Write a first-boot drive, in place of one that is there; return its path."""
    remove(pool, name)
    with named(f"writing the first-boot drive {name}"):
        volume = pool.createXML(_volume(name, len(image), "raw"))
        stream = connection.newStream()
        volume.upload(stream, 0, len(image))
        for start in range(0, len(image), CHUNK_BYTES):
            _send(stream, image[start : start + CHUNK_BYTES])
        stream.finish()
        return str(volume.path())


def remove(pool: Any, name: str) -> None:
    """Remove a volume of ours by its name; one that is gone is no error."""
    if marks.VOLUME.fullmatch(name) is None:
        raise ConflictError(f"the volume {name} is not one of ours; it stays")
    with suppress(NotStoredError), named(f"removing the volume {name}"):  # gone already
        pool.storageVolLookupByName(name).delete(0)


def remove_all(connection: Any, stem: str) -> None:
    """Remove every volume of a machine, in whatever pool of the host: a half-made one is in no definition."""
    for pool, _, _ in pools(connection):
        with named(f"listing the volumes of {pool.name()}"):
            pool.refresh()
            names = pool.listVolumes()
        for name in names:
            if name.startswith(f"{stem}."):
                remove(pool, name)


def where(connection: Any, path: str) -> tuple[Any, int] | None:
    """Return the pool of a path and the volume's size; None where no pool knows it."""
    try:
        with named(f"reading the volume {path}"):
            volume = connection.storageVolLookupByPath(path)
            return volume.storagePoolLookupByVolume(), volume.info()[1]
    except FascicleError:
        return None


def _send(stream: Any, chunk: bytes) -> None:
    while chunk:
        sent = stream.send(chunk)
        chunk = chunk[sent:]


def _volume(name: str, capacity_bytes: int, form: str, backing_path: str = "", backing_form: str = "") -> str:
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", {"unit": "bytes"}).text = str(capacity_bytes)
    if backing_path:
        ET.SubElement(volume, "allocation", {"unit": "bytes"}).text = "0"
    target = ET.SubElement(volume, "target")
    ET.SubElement(target, "format", {"type": form})
    if backing_path:
        backing = ET.SubElement(volume, "backingStore")
        ET.SubElement(backing, "path").text = backing_path
        ET.SubElement(backing, "format", {"type": backing_form})
    return ET.tostring(volume, encoding="unicode")
