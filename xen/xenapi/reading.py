"""Reads the pool's database: all of it for planning, or what one machine points to; waits for clones under way first.

Refuses to do: changing anything.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from transfer import log
from transfer.errors import FascicleError, NotStoredError
from xen.xenapi import errors, records
from xen.xenapi.records import Database
from xen.xenapi.session import PoolSession
from xen.xenapi.tasks import watch

logger = log.get_logger()
CLASSES: Final = ("VM", "VM_guest_metrics", "VBD", "VDI", "SR", "PBD", "network", "host", "host_metrics")
MAKING: Final = frozenset({"clone", "copy"})
UNKNOWN_CALL: Final = "MESSAGE_METHOD_UNKNOWN"


class Reading:
    """Reads one pool for one cluster."""

    def __init__(self, session: PoolSession, cluster: str) -> None:
        self._session, self._cluster = session, cluster
        self._groups: bool | None = None

    def view(self) -> Database:
        """Read what there is, class by class; what points to something that is gone meanwhile points nowhere."""
        read = {name: self._session.call(f"{name}.get_all_records") for name in CLASSES}
        return Database(**read, groups=self._has_groups())

    def view_of(self, record: Mapping[str, Any]) -> Database:
        """Read what one machine's record points to."""
        devices = self._records("VBD", record["VBDs"])
        disks = self._records("VDI", [each["VDI"] for each in devices.values()])
        hosts = self._records("host", [record["resident_on"], record["affinity"]])
        return Database(
            VM={},
            VM_guest_metrics=self._records("VM_guest_metrics", [record["guest_metrics"]]),
            VBD=devices,
            VDI=disks,
            SR=self._records("SR", [each["SR"] for each in disks.values()]),
            PBD={},
            network={},
            host=hosts,
            host_metrics=self._records("host_metrics", [each["metrics"] for each in hosts.values()]),
            groups=self._has_groups(),
        )

    def _records(self, name: str, references: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Read records; those that are gone are left out."""
        found: dict[str, Mapping[str, Any]] = {}
        for reference in {each for each in references if each != records.NULL}:
            with contextlib.suppress(NotStoredError):  # removed meanwhile
                found[reference] = self._session.call(f"{name}.get_record", reference)
        return found

    def _has_groups(self) -> bool:
        """Tell whether the pool knows groups; it is asked once."""
        if self._groups is None:
            self._groups = True
            try:
                self._session.call("VM_group.get_all")
            except FascicleError as error:
                if errors.name_of(error) != UNKNOWN_CALL:
                    raise
                self._groups = False
        return self._groups

    def settle(self, timeout_s: float) -> None:
        """Wait for clones that an earlier run began and did not see the end of: they are not in any list yet.

        They show as operations of the template and of our machines. After the tasks' time limit it goes on all the
        same.
        """
        watched = {key for key, each in self._session.call("VM.get_all_records").items() if self._is_busy(each)}
        if not watched:
            return
        logger.info("pool_waits_for_operations", machines=len(watched))
        for events in watch(self._session, [f"VM/{each}" for each in sorted(watched)], timeout_s):
            for event in events:
                if event["operation"] == "del" or not self._is_busy(event["snapshot"]):
                    watched.discard(event["ref"])
            if not watched:
                return

    def _is_busy(self, record: Mapping[str, Any]) -> bool:
        under_way = set(record["current_operations"].values())
        return bool(under_way & MAKING) or bool(under_way and records.is_ours(record, self._cluster))
