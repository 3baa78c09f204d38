"""What is seen at a pool: hosts, storage, networks, the template, and the machines and disks that are ours.

Frozen values without a connection, so that planning is a function of them. Ours is what bears our mark: the name
`PREFIX-NN` and the pool file's cluster name (a back end writes both where the hypervisor keeps such things: XenAPI's
`other_config`, libvirt's `<metadata>`). Refuses to do: asking anybody.
"""

from enum import StrEnum
from typing import Final

import msgspec

MIB: Final = 1 << 20
GIB: Final = 1 << 30


class Stage(StrEnum):
    """How far a machine of ours has come. Written beside the machine after each step, so that a crash resumes there."""

    RAW = "raw"  # made, and not marked yet: a crash came between; it is removed
    CLONED = "cloned"  # marked as ours
    CONFIGURED = "configured"  # has its processors, memory, disk, network and rule of spreading
    BEGUN = "begun"  # has its first-boot drive and may have been started with it
    SERVING = "serving"  # its node has enrolled and served
    LEAVING = "leaving"  # its node is being drained
    CONDEMNED = "condemned"  # nothing on it is needed: it is destroyed


class Power(StrEnum):
    """Whether a machine runs. UNKNOWN: its host is gone, so nobody can tell."""

    HALTED = "halted"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Something seen."""


class Host(Value, frozen=True, kw_only=True):
    """A host. `host_id` never changes; `name` is for people. `open`: takes new machines (not in maintenance)."""

    host_id: str
    name: str
    alive: bool
    open: bool
    memory_free_bytes: int
    memory_total_bytes: int


class Storage(Value, frozen=True, kw_only=True):
    """A storage repository (libvirt: a storage pool). `host_ids`: which hosts reach it; all of them if it is shared."""

    storage_id: str
    name: str
    free_bytes: int
    total_bytes: int
    host_ids: frozenset[str]


class Network(Value, frozen=True, kw_only=True):
    """A network that machines can be attached to."""

    network_id: str
    name: str


class Template(Value, frozen=True, kw_only=True):
    """What nodes are cloned from, and where its disk lies ('' if it has none: then it cannot be cloned).

    `also_on`: further storage that has the same (libvirt: each host has a template of its own, of one name).
    """

    template_id: str
    name: str
    disk_bytes: int
    storage_id: str
    also_on: frozenset[str] = frozenset()


class Machine(Value, frozen=True, kw_only=True):
    """A virtual machine of ours. `host_id`: where it runs, else where it ran last, else ''; `address` '' until known.

    `storage_id`: where its disk lies, '' while it has none.
    `revision`: of the node image or first-boot configuration that it was made with, as `Clone` was told.
    """

    name: str
    number: int
    machine_id: str
    stage: Stage
    power: Power
    host_id: str = ""
    storage_id: str = ""
    address: str = ""
    vcpus: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    revision: str = ""


class Disk(Value, frozen=True, kw_only=True):
    """A disk of ours that no machine has: a crash came between its making and its attaching."""

    disk_id: str
    name: str


class Pool(Value, frozen=True, kw_only=True):
    """All of it, at one moment. `storage`, `networks`: all that there are; the pool file's are found by name.

    `groups`: whether the pool itself keeps machines of a group apart (XenAPI's VM_group with anti-affinity).
    `overhead_bytes`: of memory, that a host needs for each machine beside the machine's own.
    """

    hosts: tuple[Host, ...]
    storage: tuple[Storage, ...]
    networks: tuple[Network, ...]
    templates: tuple[Template, ...]
    machines: tuple[Machine, ...]
    loose_disks: tuple[Disk, ...] = ()
    groups: bool = False
    overhead_bytes: int = 0
