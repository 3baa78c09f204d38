"""`xen.backend.Backend` by XenAPI: each method a few calls, each of them harmless when it is made again.

Refuses to do: deciding; machines and disks that do not bear our marks.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from transfer import log
from transfer.errors import ConflictError, FascicleError, FullError, NotStoredError, UnreachableError
from xen import lease
from xen.backend import Clone, Lock, Shape, raw_name
from xen.observed import Machine, Pool, Power, Stage
from xen.poolfile import XenApiTable, password
from xen.xenapi import drive, errors, lock, marks, records
from xen.xenapi.reading import Reading
from xen.xenapi.removing import Removing
from xen.xenapi.session import PoolSession
from xen.xenapi.shaping import Shaping
from xen.xenapi.tasks import run_task, watch
from xen.xenapi.transport import Transport, tls_context

logger = log.get_logger()


@contextmanager
def open_backend(
    table: XenApiTable, cluster: str, beside: Path, *, lease_s: float = lease.LEASE_S
) -> Iterator["XenApiBackend"]:
    """Open a pool; paths in the table are relative to `beside`.

    Raises:
        SettingsError: certificates or password cannot be read.
    """
    context = tls_context(table.certificates, beside)
    password(table, beside)  # what cannot be read is said before anything is asked
    with PoolSession(
        [table.coordinator, *table.others],
        table.user,
        lambda: password(table, beside),
        lambda: Transport(context, table.call_timeout_s),
        fail_over_s=table.fail_over_s,
    ) as session:
        uploads = drive.Uploads(session, context, timeout_s=table.call_timeout_s, task_timeout_s=table.task_timeout_s)
        yield XenApiBackend(session, uploads, cluster, table, lease_s=lease_s)


class XenApiBackend:
    """One pool; see `xen.backend.Backend` for what each method promises."""

    def __init__(
        self, session: PoolSession, uploads: drive.Uploads, cluster: str, table: XenApiTable, *, lease_s: float
    ) -> None:
        self._session, self._uploads, self._cluster = session, uploads, cluster
        self._task_timeout_s, self._priority, self._lease_s = table.task_timeout_s, table.ha_priority, lease_s
        self._reading = Reading(session, cluster)
        self._removing = Removing(session, cluster, task_timeout_s=table.task_timeout_s)

    def observe(self) -> Pool:
        """See `Backend`."""
        self._reading.settle(self._task_timeout_s)
        view = self._reading.view()
        self._session.know_members(each["address"] for each in view.host.values())
        return records.pool(view, self._cluster)

    def open_lock(self, owner: str, wait_s: float) -> AbstractContextManager[Lock]:
        """See `Backend`."""
        return lock.hold_lock(self._session, self._cluster, owner, wait_s, lease_s=self._lease_s)

    def clone(self, wish: Clone) -> None:
        """See `Backend`."""
        label = raw_name(wish.name, self._cluster)
        for _, record in self._ours(wish.name, label):
            if self._bears(record, wish.name):
                return
            if marks.name_of(record, self._cluster) == wish.name:
                self._removing.destroy(record["uuid"])
        template = self._session.call("VM.get_by_uuid", wish.template_id)
        if wish.full_copy:
            storage = self._session.call("SR.get_by_uuid", wish.storage_id)
            made = self._run("VM.copy", template, label, storage)
        else:
            made = self._run("VM.clone", template, label)
        record = self._session.call("VM.get_record", made)
        config = marks.marks(record, cluster=self._cluster, name=wish.name, stage=Stage.CLONED, revision=wish.revision)
        self._session.call("VM.set_other_config", made, config)

    def configure(self, name: str, shape: Shape) -> None:
        """See `Backend`."""
        machine, record = self._one(name)
        if record["name_label"] != name:
            self._session.call("VM.set_name_label", machine, name)
        view = self._reading.view_of(record)
        Shaping(self._session, view, timeout_s=self._task_timeout_s).shape(machine, record, shape)
        if self._priority and record["ha_restart_priority"] != self._priority:
            self._session.call("VM.set_ha_restart_priority", machine, self._priority)
        self.mark(name, Stage.CONFIGURED)

    def choose_host(self, name: str, preference: Iterable[str]) -> str:
        """See `Backend`."""
        machine, _ = self._one(name)
        wished = [(host_id, self._session.call("host.get_by_uuid", host_id)) for host_id in preference]
        possible = set(self._session.call("VM.get_possible_hosts", machine))
        for host_id, host in wished:
            if host in possible:
                return host_id
        reasons = [self._why_not(machine, host) for _, host in wished]
        raise FullError(f"no host takes {name}: {'; '.join(reasons) or 'none was proposed'}")

    def attach_first_boot(self, name: str, image: bytes) -> None:
        """See `Backend`."""
        machine, record = self._one(name)
        view = self._reading.view_of(record)
        for device in records.drives(record, view):
            self._removing.remove_drive(device, view.VBD[device]["VDI"])
        for device in records.dangling(record, view):
            self._session.call("VBD.destroy", device)
        disk = records.system_disk(record, view)
        if disk is None:
            raise ConflictError(f"{name} has no disk")
        to = drive.Attachment(machine=machine, storage=disk["SR"], name=name, cluster=self._cluster)
        drive.attach(self._session, self._uploads, to, image)
        self.mark(name, Stage.BEGUN)

    def start(self, name: str, host_id: str) -> None:
        """See `Backend`."""
        machine, record = self._one(name)
        host = self._session.call("host.get_by_uuid", host_id)
        match Power(record["power_state"].lower()):
            case Power.HALTED:
                self._run("VM.start_on", machine, host, False, False)
            case Power.PAUSED:
                self._run("VM.unpause", machine)
            case Power.SUSPENDED:
                self._run("VM.resume_on", machine, host, False, False)
            case _:
                return

    def wait_for_address(self, name: str, timeout_s: float) -> str:
        """See `Backend`."""
        machine, record = self._one(name)
        guest = record["guest_metrics"]
        classes = [f"VM/{machine}", "VM_guest_metrics"]
        for events in watch(self._session, classes, timeout_s):
            for event in events:
                if event["ref"] == machine and event["operation"] != "del":
                    guest = event["snapshot"]["guest_metrics"]
            if guest != records.NULL and (found := self._address(guest)):
                return found
        raise UnreachableError(f"{name} has told no address within {timeout_s:.0f} s; has the image guest tools?")

    def mark(self, name: str, stage: Stage) -> None:
        """See `Backend`."""
        machine, record = self._one(name)
        if marks.stage_of(record, self._cluster) != stage:
            config = record["other_config"] | {marks.STAGE: stage.value}
            self._session.call("VM.set_other_config", machine, config)

    def shut_down(self, name: str, timeout_s: float) -> None:
        """See `Backend`."""
        machine, record = self._one(name)
        if record["power_state"] == "Running":
            try:
                run_task(self._session, "VM.clean_shutdown", machine, timeout_s=timeout_s)
            except FascicleError as error:
                logger.info("pool_guest_not_shut_down", machine=name, reason=error.message)
        self._removing.switch_off(machine)

    def destroy(self, machine_id: str) -> None:
        """See `Backend`."""
        self._removing.destroy(machine_id)

    def destroy_disk(self, disk_id: str) -> None:
        """See `Backend`."""
        self._removing.destroy_disk(disk_id)

    def move(self, name: str, host_id: str) -> None:
        """See `Backend`."""
        machine, record = self._one(name)
        host = self._session.call("host.get_by_uuid", host_id)
        if record["resident_on"] != host:
            self._run("VM.pool_migrate", machine, host, {"live": "true"})

    def open_host(self, host_id: str, *, is_open: bool) -> None:
        """See `Backend`."""
        host = self._session.call("host.get_by_uuid", host_id)
        if self._session.call("host.get_enabled", host) != is_open:
            self._run("host.enable" if is_open else "host.disable", host)

    def snapshot(self, name: str, label: str) -> None:
        """See `Backend`."""
        machine, record = self._one(name)
        if not any(self._session.call("VM.get_name_label", each) == label for each in record["snapshots"]):
            self._run("VM.snapshot", machine, label)

    def machine(self, name: str) -> Machine:
        """See `Backend`."""
        _, record = self._one(name)
        return records.machine(record, self._reading.view_of(record), self._cluster)

    def _run(self, method: str, *parameters: Any) -> str:
        """Run a long call as a task, and say how far it is."""

        def progress(ratio: float) -> None:
            logger.debug("pool_task", call=method, progress_ratio=round(ratio, 3))

        return run_task(self._session, method, *parameters, timeout_s=self._task_timeout_s, progress=progress)

    def _ours(self, *labels: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the machines of ours that bear one of these labels, marked ones first."""
        found: dict[str, Mapping[str, Any]] = {}
        for label in labels:
            for machine in self._session.call("VM.get_by_name_label", label):
                with contextlib.suppress(NotStoredError):  # removed meanwhile
                    found[machine] = self._session.call("VM.get_record", machine)
        ours = [(key, each) for key, each in found.items() if records.is_ours(each, self._cluster)]
        return sorted(ours, key=lambda each: (not marks.is_marked(each[1], self._cluster), each[1]["uuid"]))

    def _one(self, name: str) -> tuple[str, Mapping[str, Any]]:
        """Return the machine of this name that bears our marks; one that somebody renamed is found, too."""
        for labels in ([name], [raw_name(name, self._cluster)]):
            for machine, record in self._ours(*labels):
                if self._bears(record, name):
                    return machine, record
        for machine, record in self._session.call("VM.get_all_records").items():
            if self._bears(record, name):
                return machine, record
        raise NotStoredError(f"the pool has no machine {name} of {self._cluster}")

    def _bears(self, record: Mapping[str, Any], name: str) -> bool:
        return marks.is_marked(record, self._cluster) and marks.name_of(record, self._cluster) == name

    def _address(self, guest: str) -> str:
        try:
            return records.address(self._session.call("VM_guest_metrics.get_record", guest))
        except NotStoredError:
            return ""

    def _why_not(self, machine: str, host: str) -> str:
        name = self._session.call("host.get_name_label", host)
        try:
            self._session.call("VM.assert_can_boot_here", machine, host)
        except FascicleError as error:
            return f"{name}: {errors.name_of(error)}"
        return f"{name}: not now"
