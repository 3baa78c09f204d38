"""Gives a halted machine its shape: processors, memory, disk, network card, and the group that is kept apart.

Each part is compared first, so that a second time does nothing. Refuses to do: machines that run.
"""

from collections.abc import Mapping
from typing import Any, Final

from transfer import log
from transfer.errors import FascicleError
from xen.backend import Shape
from xen.xenapi import errors, records
from xen.xenapi.records import Database
from xen.xenapi.session import PoolSession
from xen.xenapi.tasks import run_task

logger = log.get_logger()
NO_GROUPS: Final = frozenset({"MESSAGE_METHOD_UNKNOWN", "LICENCE_RESTRICTION", "LICENSE_RESTRICTION"})
MEMORY: Final = ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min")
Record = Mapping[str, Any]


class Shaping:
    """Shapes machines of one pool."""

    def __init__(self, session: PoolSession, view: Database, *, timeout_s: float) -> None:
        self._session, self._view, self._timeout_s = session, view, timeout_s

    def shape(self, machine: str, record: Record, shape: Shape) -> None:
        """Bring the machine into the shape.

        Raises:
            FullError: the storage has no room for the disk.
            FascicleError: whatever else the pool says.
        """
        if record["is_a_template"]:
            run_task(self._session, "VM.provision", machine, timeout_s=self._timeout_s)
        self._processors(machine, record, shape.vcpus)
        if {int(record[key]) for key in MEMORY} != {shape.memory_bytes}:
            self._session.call("VM.set_memory", machine, str(shape.memory_bytes))
        self._disk(record, shape.disk_bytes)
        self._card(machine, record, self._session.call("network.get_by_uuid", shape.network_id))
        if shape.group and self._view.groups:
            self._group(machine, record, shape.group)

    def _processors(self, machine: str, record: Record, vcpus: int) -> None:
        """Set both numbers in an order in which at start-up is never more than at most."""
        calls = ["VM.set_VCPUs_max", "VM.set_VCPUs_at_startup"]
        if vcpus < int(record["VCPUs_at_startup"]):
            calls.reverse()
        if {int(record["VCPUs_max"]), int(record["VCPUs_at_startup"])} != {vcpus}:
            for call in calls:
                self._session.call(call, machine, str(vcpus))

    def _disk(self, record: Record, disk_bytes: int) -> None:
        found = records.system_disk(record, self._view)
        if found is not None and int(found["virtual_size"]) < disk_bytes:
            disk = self._session.call("VDI.get_by_uuid", found["uuid"])
            run_task(self._session, "VDI.resize", disk, str(disk_bytes), timeout_s=self._timeout_s)

    def _card(self, machine: str, record: Record, network: str) -> None:
        """Leave the machine exactly one network card, on this network."""
        kept = ""
        for card in record["VIFs"]:
            if not kept and self._session.call("VIF.get_network", card) == network:
                kept = card
            else:
                self._session.call("VIF.destroy", card)
        if not kept:
            self._session.call("VIF.create", _card_record(machine, network))

    def _group(self, machine: str, record: Record, label: str) -> None:
        """Put the machine into the group; where the licence does not allow it, our own spreading is what there is."""
        try:
            group = self._find_group(label) or self._session.call("VM_group.create", _group_record(label))
            if group not in record["groups"]:
                self._session.call("VM.set_groups", machine, [group])
        except FascicleError as error:
            if errors.name_of(error) not in NO_GROUPS:
                raise
            logger.info("pool_without_groups", reason=error.message)

    def _find_group(self, label: str) -> str:
        found: list[str] = self._session.call("VM_group.get_by_name_label", label)
        return min(found, default="")


def _card_record(machine: str, network: str) -> dict[str, Any]:
    return {
        "device": "0",
        "network": network,
        "VM": machine,
        "MAC": "",
        "MTU": "1500",
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }


def _group_record(label: str) -> dict[str, Any]:
    return {
        "name_label": label,
        "name_description": "storage nodes, kept apart so that replicas never share a host",
        "placement": "anti_affinity",
    }
