"""Definitions of machines (libvirt's domain XML) as values that are read and changed: pure functions.

A node's definition is its template's, with its own identity, disk, shape and card: whatever else the template says of
machine type, console or processor model holds for its nodes, so that one code serves Xen and KVM. Refuses to do: asking
libvirt anything; parsing XML of anybody but libvirt.
"""

import copy
import hashlib
import uuid
from typing import Final
from xml.etree import ElementTree as ET

from transfer.errors import ConflictError
from xen.backend import Shape
from xen.libvirt import marks
from xen.libvirt.marks import Mark

XEN_CARD, OTHER_CARD = "00:16:3e", "52:54:00"  # the two makers' own ranges of hardware addresses
CD_BUSES: Final = frozenset({"ide", "sata", "scsi"})
UNITS: Final = {"b": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# Of the template alone: names, places and keys that another machine must not share.
NOT_COPIED: Final = ("uuid", "title", "description", "metadata", "seclabel", "genid")


def parse(xml: str) -> ET.Element:
    """Return a definition."""
    return ET.fromstring(xml)  # noqa: S314  # libvirt's own


def text(definition: ET.Element) -> str:
    """Return a definition as libvirt takes it."""
    return ET.tostring(definition, encoding="unicode")


def from_template(template: ET.Element, mark: Mark) -> ET.Element:
    """Return the definition of a node: the template's, with this mark, and without any disk yet."""
    made = copy.deepcopy(template)
    made.attrib.pop("id", None)
    for name in NOT_COPIED:
        for each in made.findall(name):
            made.remove(each)
    _set_text(made, "name", mark.name)
    _set_text(made, "uuid", mark.uuid)
    set_mark(made, mark)
    for each in made.findall("devices/disk"):
        _devices(made).remove(each)
    for each in made.findall("devices/channel/source"):
        each.attrib.pop("path", None)  # libvirt gives each machine its own
    for each in made.findall("os/nvram"):
        each.text = None
    return made


def set_disk(definition: ET.Element, template: ET.Element, path: str, form: str) -> None:
    """Give a definition its disk: the template's, but the file or device `path`."""
    disk = copy.deepcopy(_system_disk(template))
    _set_source(disk, path, form)
    _devices(definition).insert(0, disk)


def template_disk(template: ET.Element) -> tuple[str, str]:
    """Return the path of a template's disk and its format.

    Raises:
        ConflictError: it has none.
    """
    disk = _system_disk(template)
    driver = disk.find("driver")
    return _path(disk), driver.get("type", "raw") if driver is not None else "raw"


def set_mark(definition: ET.Element, mark: Mark) -> None:
    """Write the mark, in place of one that is there; leave others' metadata."""
    metadata = definition.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(definition, "metadata")
    for each in metadata.findall(marks.NODE):
        metadata.remove(each)
    metadata.append(marks.element(mark))


def set_shape(definition: ET.Element, shape: Shape) -> None:
    """Give a definition its processors, memory, and one card on the network."""
    for each in definition.findall("vcpu"):
        each.attrib.pop("current", None)
    for name in ("vcpus", "maxMemory", "cputune", "memtune"):
        for each in definition.findall(name):
            definition.remove(each)
    _set_text(definition, "vcpu", str(shape.vcpus))
    for name in ("memory", "currentMemory"):
        _set_text(definition, name, str(shape.memory_bytes >> 10)).set("unit", "KiB")
    _set_card(definition, shape.network_id)


def set_drive(definition: ET.Element, path: str) -> None:
    """Attach a read-only drive, in place of one of ours that is there."""
    devices, system = _devices(definition), _system_disk(definition)
    for each in devices.findall("disk"):
        if each is not system:
            devices.remove(each)
    target = system.find("target")
    bus = target.get("bus", "") if target is not None else ""
    device = "cdrom" if bus in CD_BUSES else "disk"
    drive = ET.SubElement(devices, "disk", {"type": "file", "device": device})
    ET.SubElement(drive, "driver", {"name": "qemu", "type": "raw"})
    _set_source(drive, path, "raw")
    ET.SubElement(drive, "target", {"dev": _next_name(target), **({"bus": bus} if bus else {})})
    ET.SubElement(drive, "readonly")


def disk_paths(definition: ET.Element) -> list[str]:
    """Return the files and devices of a definition's disks, the system disk first."""
    paths = [_path(each) for each in definition.findall("devices/disk")]
    return [path for path in paths if path]


def memory_bytes(definition: ET.Element) -> int:
    """Return the memory that a machine may take."""
    found = definition.find("memory")
    if found is None or not found.text:
        return 0
    return int(found.text) * UNITS.get(found.get("unit", "KiB"), 1 << 10)


def vcpus(definition: ET.Element) -> int:
    """Return the number of processors."""
    return int(definition.findtext("vcpu") or 1)


def agent_answers(definition: ET.Element) -> bool:
    """Tell whether a running machine's guest agent has connected."""
    targets = definition.findall("devices/channel/target")
    return any(each.get("name") == "org.qemu.guest_agent.0" and each.get("state") == "connected" for each in targets)


def _system_disk(definition: ET.Element) -> ET.Element:
    for each in definition.findall("devices/disk"):
        if each.get("device", "disk") == "disk" and each.find("readonly") is None and _path(each):
            return each
    raise ConflictError(f"the machine {definition.findtext('name')} has no disk that is a file or device")


def _path(disk: ET.Element) -> str:
    source = disk.find("source")
    return "" if source is None else source.get("file") or source.get("dev") or ""


def _set_source(disk: ET.Element, path: str, form: str) -> None:
    kind = "block" if path.startswith("/dev/") else "file"
    disk.set("type", kind)
    for name in ("source", "backingStore", "serial", "wwn"):
        for each in disk.findall(name):
            disk.remove(each)
    ET.SubElement(disk, "source", {"dev" if kind == "block" else "file": path})
    driver = disk.find("driver")
    if driver is not None:
        driver.set("type", form)
    else:
        ET.SubElement(disk, "driver", {"name": "qemu", "type": form})


def _set_card(definition: ET.Element, network: str) -> None:
    devices = _devices(definition)
    cards = devices.findall("interface")
    model = cards[0].find("model") if cards else None
    for each in cards:
        devices.remove(each)
    card = ET.SubElement(devices, "interface", {"type": "network"})
    ET.SubElement(card, "mac", {"address": _hardware_address(definition)})
    ET.SubElement(card, "source", {"network": network})
    if model is not None:
        card.append(model)


def _hardware_address(definition: ET.Element) -> str:
    """Return an address that is the machine's own for good, out of its uuid."""
    digest = hashlib.sha256(uuid.UUID(definition.findtext("uuid")).bytes).digest()
    maker = XEN_CARD if definition.get("type") == "xen" else OTHER_CARD
    return f"{maker}:{digest[0]:02x}:{digest[1]:02x}:{digest[2]:02x}"


def _next_name(target: ET.Element | None) -> str:
    name = target.get("dev", "vda") if target is not None else "vda"
    return name[:-1] + chr(ord(name[-1]) + 1)


def _devices(definition: ET.Element) -> ET.Element:
    found = definition.find("devices")
    return found if found is not None else ET.SubElement(definition, "devices")


def _set_text(definition: ET.Element, name: str, value: str) -> ET.Element:
    found = definition.find(name)
    if found is None:
        found = ET.SubElement(definition, name)
    found.text = value
    return found
