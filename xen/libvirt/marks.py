"""What we write beside machines and disks of ours, and how ours are told from others by it.

A machine: one element of its `<metadata>`, written in one step with or without the rest of its definition
    <fascicle:node xmlns:fascicle="urn:fascicle:node:1" cluster= name= number= uuid= stage= revision= />
where `uuid` is the machine's own: a copy that somebody makes has the element too, but another uuid.
A volume: its name, `fascicle.CLUSTER.NAME.UUID.disk`, or `.drive` for the first-boot drive; UUID: the first 8 digits of
the machine's, so that no two machines that ever were have volumes of one name. The machine is defined first
(`Stage.RAW`, without a disk), so that whatever is made for it is found by it.
Refuses to do: reading and writing them.
"""

import re
from typing import Final
from xml.etree import ElementTree as ET

import msgspec

from xen.observed import Stage

NAMESPACE: Final = "urn:fascicle:node:1"
PREFIX: Final = "fascicle"
NODE: Final = f"{{{NAMESPACE}}}node"
VOLUME: Final = re.compile(r"fascicle\.([a-z0-9-]+)\.([a-z0-9-]+)\.([0-9a-f]{8})\.(disk|drive)")
ET.register_namespace(PREFIX, NAMESPACE)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The element's attributes."""

    cluster: str
    name: str
    number: int
    uuid: str
    stage: Stage
    revision: str = ""


def element(mark: Mark) -> ET.Element:
    """Return a mark as the element that goes into `<metadata>`."""
    made = ET.Element(NODE)
    for key, value in msgspec.structs.asdict(mark).items():
        made.set(key, str(value))
    return made


def text(mark: Mark) -> str:
    """Return a mark as libvirt takes a single element: without its prefix, which it adds."""
    made = element(mark)
    made.tag = "node"
    return ET.tostring(made, encoding="unicode")


def read(domain: ET.Element, cluster: str) -> Mark | None:
    """Return the mark of a machine that is ours; None for every other, and for copies of ours."""
    found = domain.find(f"metadata/{NODE}")
    if found is None or found.get("cluster") != cluster or found.get("uuid") != domain.findtext("uuid"):
        return None
    try:
        stage = Stage(found.get("stage", ""))
    except ValueError:
        stage = Stage.SERVING  # written by a later version, or by hand: the most careful reading
    number = found.get("number", "")
    return Mark(
        cluster=cluster,
        name=found.get("name", ""),
        number=int(number) if number.isdecimal() else 0,
        uuid=found.get("uuid", ""),
        stage=stage,
        revision=found.get("revision", ""),
    )


def is_marked(domain: ET.Element) -> bool:
    """Tell whether a machine bears the mark of any cluster, or a copy of one."""
    return domain.find(f"metadata/{NODE}") is not None


def disk_name(mark: Mark) -> str:
    """Return the name of the volume that is a machine's disk."""
    return f"{stem(mark)}.disk"


def drive_name(mark: Mark) -> str:
    """Return the name of the volume that is a machine's first-boot drive."""
    return f"{stem(mark)}.drive"


def stem(mark: Mark) -> str:
    """Return what the names of all of a machine's volumes begin with."""
    return f"fascicle.{mark.cluster}.{mark.name}.{mark.uuid[:8]}"


def drive_owner(volume: str, cluster: str) -> tuple[str, str]:
    """Return the node's name and its uuid's first digits in a drive's name, if it is of this cluster; else ('', '')."""
    found = VOLUME.fullmatch(volume)
    ours = found is not None and found[1] == cluster and found[4] == "drive"
    return (found[2], found[3]) if found is not None and ours else ("", "")
