"""Removes machines and disks of ours: disks first and the machine last, so that nothing is left that nobody finds.

Only what bears our marks, checked here once more, and of its disks only those that no other machine has. Refuses to do:
machines that may be running on a host that is gone.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from transfer.errors import ConflictError, NotStoredError
from xen.xenapi import marks, records
from xen.xenapi.records import NULL
from xen.xenapi.session import PoolSession
from xen.xenapi.tasks import run_task


class Removing:
    """Removes things of one cluster at one pool."""

    def __init__(self, session: PoolSession, cluster: str, *, task_timeout_s: float) -> None:
        self._session, self._cluster, self._task_timeout_s = session, cluster, task_timeout_s

    def destroy(self, machine_id: str) -> None:
        """Remove a machine, its snapshots and all their disks; one that is gone already is no error.

        Raises:
            ConflictError: it is not ours, or its host is gone.
        """
        with contextlib.suppress(NotStoredError):  # gone already
            machine = self._session.call("VM.get_by_uuid", machine_id)
            record = self._session.call("VM.get_record", machine)
            if not records.is_ours(record, self._cluster):
                raise ConflictError(f"the machine {record['name_label']} does not bear our marks; it stays")
            self._check_host(record)
            self.switch_off(machine)
            for snapshot in record["snapshots"]:
                self._remove(snapshot, self._session.call("VM.get_record", snapshot))
            self._remove(machine, self._session.call("VM.get_record", machine))

    def switch_off(self, machine: str) -> None:
        """Switch a machine off that is not halted."""
        if self._session.call("VM.get_power_state", machine) != "Halted":
            run_task(self._session, "VM.hard_shutdown", machine, timeout_s=self._task_timeout_s)

    def destroy_disk(self, disk_id: str) -> None:
        """Remove a first-boot drive that no machine has."""
        with contextlib.suppress(NotStoredError):  # gone already
            disk = self._session.call("VDI.get_by_uuid", disk_id)
            record = self._session.call("VDI.get_record", disk)
            if record["other_config"].get(marks.CLUSTER) != self._cluster or record["VBDs"]:
                raise ConflictError(f"the disk {record['name_label']} is not a loose one of ours; it stays")
            self._session.call("VDI.destroy", disk)

    def remove_drive(self, device: str, disk: str) -> None:
        """Take a first-boot drive off a halted machine and remove it."""
        with contextlib.suppress(NotStoredError):  # gone already
            self._session.call("VDI.destroy", disk)  # first: without its device nobody would find it
        with contextlib.suppress(NotStoredError):  # gone already
            self._session.call("VBD.destroy", device)

    def _remove(self, machine: str, record: Mapping[str, Any]) -> None:
        for device in record["VBDs"]:
            with contextlib.suppress(NotStoredError):  # gone already
                self._remove_disk(machine, device)
        with contextlib.suppress(NotStoredError):  # gone already
            self._session.call("VM.destroy", machine)

    def _remove_disk(self, machine: str, device: str) -> None:
        record = self._session.call("VBD.get_record", device)
        if record["type"] == "Disk" and record["VDI"] != NULL:
            others = self._session.call("VDI.get_VBDs", record["VDI"])
            if all(self._session.call("VBD.get_VM", each) == machine for each in others):
                self._session.call("VDI.destroy", record["VDI"])

    def _check_host(self, record: Mapping[str, Any]) -> None:
        if record["power_state"] == "Halted" or record["resident_on"] == NULL:
            return
        metrics = self._session.call("host.get_metrics", record["resident_on"])
        if not self._session.call("host_metrics.get_live", metrics):
            raise ConflictError(
                f"the host of {record['name_label']} is gone, and it may still be running there; it is not removed "
                "until the host is back, or the pool's administrator has had its power state reset"
            )
