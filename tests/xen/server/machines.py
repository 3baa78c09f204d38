"""What XenAPI's calls do with machines and disks, as far as storage nodes need it; each is one method, named alike.

Those that are slow for a real pool wait as long as `Pool.delays` says. Errors are those that the data model declares.
"""

import threading
import time
import uuid
from typing import Any

from tests.xen.server.database import NULL, Failure, plain_copy
from tests.xen.server.pool import MIB, OVERHEAD, Pool

CLONE_BYTES = 8 * MIB  # what a copy-on-write disk takes at first


class Machines:
    """The calls of VM, VDI, VBD, VIF and host that need code of their own. `task` is told to those that are slow."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.base = pool, pool.database

    def names(self) -> dict[str, Any]:
        """Return the calls by XenAPI's names."""
        return {
            name.replace("__", "."): getattr(self, name)
            for name in dir(self)
            if name.partition("__")[0] in ("VM", "VDI", "VBD", "VIF", "VM_group", "host") and "__" in name
        }

    # Making

    def VM__clone(self, machine: str, label: str, *, task: str = "") -> str:
        return self._copy(machine, label, "", task, "clone")

    def VM__copy(self, machine: str, label: str, storage: str, *, task: str = "") -> str:
        return self._copy(machine, label, storage, task, "copy")

    def _copy(self, machine: str, label: str, storage: str, task: str, what: str) -> str:
        self._must_be(machine, "Halted")
        with self.base.operation("VM", machine, task or str(uuid.uuid4()), what):
            time.sleep(self.pool.delays.clone)
            source = plain_copy(self.base.get("VM", machine))
            disks = [self._copy_disk(each, storage) for each in source["VBDs"]]
            source |= {
                "uuid": str(uuid.uuid4()),
                "name_label": label,
                "VBDs": [],
                "VIFs": [],
                "current_operations": {},
                "snapshots": [],
                "groups": [],
            }
            with self.base.changed:
                made = self.base.make("VM", **source)
                for disk, device, bootable in disks:
                    self.pool.attach_disk(made, disk, device, bootable=bootable)
                for card in self.base.get("VM", machine)["VIFs"]:
                    network = self.base.get("VIF", card)["network"]
                    self._add_card(made, self.base.make("VIF", VM=made, network=network, device="0"))
        return made

    def _copy_disk(self, device: str, storage: str) -> tuple[str, str, bool]:
        block = self.base.get("VBD", device)
        disk = plain_copy(self.base.get("VDI", block["VDI"]))
        target = storage if storage not in ("", NULL) else disk["SR"]
        self.pool.use(target, int(disk["virtual_size"]) if storage else CLONE_BYTES)
        disk |= {"uuid": str(uuid.uuid4()), "SR": target, "VBDs": [], "type": "user"}
        made = self.base.make("VDI", **disk)
        self.pool.contents[f"used {made}"] = str(int(disk["virtual_size"]) if storage else CLONE_BYTES).encode()
        return made, block["userdevice"], block["bootable"]

    def VM__provision(self, machine: str, *, task: str = "") -> str:
        self._must_be(machine, "Halted")
        self.base.set("VM", machine, is_a_template=False)
        return ""

    def VM__snapshot(self, machine: str, label: str, *_: Any, task: str = "") -> str:
        record = plain_copy(self.base.get("VM", machine))
        disks = [self._copy_disk(each, "") for each in record["VBDs"] if self.base.get("VBD", each)["VDI"] != NULL]
        record |= {
            "uuid": str(uuid.uuid4()),
            "name_label": label,
            "is_a_snapshot": True,
            "is_a_template": True,
            "snapshot_of": machine,
            "power_state": "Halted",
            "resident_on": NULL,
            "VBDs": [],
            "VIFs": [],
        }
        made = self.base.make("VM", **record)
        for disk, device, bootable in disks:
            self.base.set("VDI", disk, is_a_snapshot=True)
            self.pool.attach_disk(made, disk, device, bootable=bootable)
        self.base.set("VM", machine, snapshots=[*self.base.get("VM", machine)["snapshots"], made])
        return made

    # Shape

    def VM__set_VCPUs_max(self, machine: str, value: str, **_: Any) -> str:
        if int(value) < int(self.base.get("VM", machine)["VCPUs_at_startup"]):
            raise Failure("INVALID_VALUE", "VCPUs_max", value)
        self.base.set("VM", machine, VCPUs_max=value)
        return ""

    def VM__set_VCPUs_at_startup(self, machine: str, value: str, **_: Any) -> str:
        if int(value) > int(self.base.get("VM", machine)["VCPUs_max"]):
            raise Failure("INVALID_VALUE", "VCPUs_at_startup", value)
        self.base.set("VM", machine, VCPUs_at_startup=value)
        return ""

    def VM__set_memory(self, machine: str, value: str, **_: Any) -> str:
        self._must_be(machine, "Halted")
        if int(value) < int(self.base.get("VM", machine)["memory_static_min"]):
            raise Failure("MEMORY_CONSTRAINT_VIOLATION", "static_min <= value")
        fields = ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min")
        self.base.set("VM", machine, **dict.fromkeys(fields, value))
        return ""

    def VM__set_groups(self, machine: str, groups: list[str], **_: Any) -> str:
        for group in groups:
            self.base.get("VM_group", group)
        self.base.set("VM", machine, groups=groups)
        for group, record in list(self.base.records["VM_group"].items()):
            others = [each for each in record["VMs"] if each != machine]
            self.base.set("VM_group", group, VMs=[*others, machine] if group in groups else others)
        return ""

    def VM__set_ha_restart_priority(self, machine: str, value: str, **_: Any) -> str:
        if value not in ("", "best-effort", "restart"):
            raise Failure("INVALID_VALUE", "ha_restart_priority", value)
        self.base.set("VM", machine, ha_restart_priority=value)
        return ""

    def VM__get_allowed_VBD_devices(self, machine: str, **_: Any) -> list[str]:
        used = {self.base.get("VBD", each)["userdevice"] for each in self.base.get("VM", machine)["VBDs"]}
        return [str(number) for number in range(8) if str(number) not in used]

    # Power

    def VM__get_possible_hosts(self, machine: str, **_: Any) -> list[str]:
        return [host for host in self.base.records["host"] if self._why_not(machine, host) is None]

    def VM__assert_can_boot_here(self, machine: str, host: str, **_: Any) -> str:
        if (reason := self._why_not(machine, host)) is not None:
            raise reason
        return ""

    def VM__start_on(self, machine: str, host: str, paused: bool, force: bool, *, task: str = "") -> str:
        self._must_be(machine, "Halted")
        if self.base.get("VM", machine)["is_a_template"]:
            raise Failure("VM_IS_TEMPLATE", machine)
        with self.base.operation("VM", machine, task or "start", "start_on"), self.pool.lock:
            if (reason := self._why_not(machine, host)) is not None:
                raise reason
            self._check_devices(machine)
            self.pool.claim_memory(host, self._memory(machine))
            self.base.set("VM", machine, power_state="Running", resident_on=host)
        self._boot(machine)
        return ""

    def VM__unpause(self, machine: str, *, task: str = "") -> str:
        self._must_be(machine, "Paused")
        self.base.set("VM", machine, power_state="Running")
        return ""

    def VM__resume_on(self, machine: str, host: str, paused: bool, force: bool, *, task: str = "") -> str:
        self._must_be(machine, "Suspended")
        self.pool.claim_memory(host, self._memory(machine))
        self.base.set("VM", machine, power_state="Running", resident_on=host)
        self._boot(machine)
        return ""

    def VM__clean_shutdown(self, machine: str, *, task: str = "") -> str:
        self._must_be(machine, "Running")
        if self.pool.hang_shutdown:
            deadline = time.monotonic() + 30
            while task in self.base.records["task"] and time.monotonic() < deadline:
                if self.base.records["task"][task]["status"] == "cancelling":
                    raise Failure("TASK_CANCELLED", task)
                time.sleep(0.02)
        time.sleep(self.pool.delays.shutdown)
        return self._halt(machine)

    def VM__hard_shutdown(self, machine: str, *, task: str = "") -> str:
        if self.base.get("VM", machine)["power_state"] == "Halted":
            raise Failure("VM_BAD_POWER_STATE", machine, "running", "halted")
        host = self.base.get("VM", machine)["resident_on"]
        if host != NULL and not self.pool.is_live(host):
            raise Failure("HOST_OFFLINE", host)
        return self._halt(machine)

    def VM__pool_migrate(self, machine: str, host: str, options: dict[str, str], *, task: str = "") -> str:
        self._must_be(machine, "Running")
        if (reason := self._why_not(machine, host)) is not None:
            raise reason
        self.pool.claim_memory(host, self._memory(machine))
        self.pool.claim_memory(self.base.get("VM", machine)["resident_on"], -self._memory(machine))
        self.base.set("VM", machine, resident_on=host)
        return ""

    def host__disable(self, host: str, *_: Any, task: str = "") -> str:
        self.base.set("host", host, enabled=False)
        return ""

    def host__enable(self, host: str, *, task: str = "") -> str:
        self.base.set("host", host, enabled=True)
        return ""

    # Removing

    def VM__destroy(self, machine: str) -> str:
        self._must_be(machine, "Halted")
        record = self.base.get("VM", machine)
        for device in [each for each in record["VBDs"] if each in self.base.records["VBD"]]:
            self.VBD__destroy(device)
        for card in record["VIFs"]:
            self.base.remove("VIF", card)
        if record["snapshot_of"] in self.base.records["VM"]:
            rest = [each for each in self.base.get("VM", record["snapshot_of"])["snapshots"] if each != machine]
            self.base.set("VM", record["snapshot_of"], snapshots=rest)
        self.base.remove("VM", machine)
        return ""

    def VDI__create(self, record: dict[str, Any]) -> str:
        self.base.get("SR", record["SR"])
        self.pool.use(record["SR"], int(record["virtual_size"]))
        made = self.base.make("VDI", **record)
        self.pool.contents[f"used {made}"] = record["virtual_size"].encode()
        return made

    def VDI__destroy(self, disk: str) -> str:
        """Remove a disk; its block devices stay and point nowhere, which keeps their machine from starting."""
        record = self.base.get("VDI", disk)
        for device in record["VBDs"]:
            machine = self.base.records["VBD"].get(device, {}).get("VM", NULL)
            if machine in self.base.records["VM"] and self.base.get("VM", machine)["power_state"] != "Halted":
                raise Failure("VDI_IN_USE", disk, "destroy")
        self.base.remove("VDI", disk)
        used = self.pool.contents.pop(f"used {disk}", record["virtual_size"].encode())
        self.pool.use(record["SR"], -int(used))
        return ""

    def VDI__resize(self, disk: str, size: str, *, task: str = "") -> str:
        record = self.base.get("VDI", disk)
        self.pool.use(record["SR"], int(size) - int(record["virtual_size"]))
        used = int(self.pool.contents.get(f"used {disk}", b"0")) + int(size) - int(record["virtual_size"])
        self.pool.contents[f"used {disk}"] = str(used).encode()
        self.base.set("VDI", disk, virtual_size=size)
        return ""

    def VBD__create(self, record: dict[str, Any]) -> str:
        machine = self.base.get("VM", record["VM"])
        self.base.get("VDI", record["VDI"])
        if record["mode"] == "RO" and record["type"] == "Disk":
            raise Failure("DISK_VBD_MUST_BE_READWRITE_FOR_HVM")
        if record["userdevice"] in {self.base.get("VBD", each)["userdevice"] for each in machine["VBDs"]}:
            raise Failure("DEVICE_ALREADY_EXISTS", record["userdevice"])
        made = self.base.make("VBD", **record)
        self.base.set("VM", record["VM"], VBDs=[*machine["VBDs"], made])
        disk = self.base.get("VDI", record["VDI"])
        self.base.set("VDI", record["VDI"], VBDs=[*disk["VBDs"], made])
        return made

    def VBD__destroy(self, device: str) -> str:
        record = self.base.get("VBD", device)
        for name, owner in (("VM", record["VM"]), ("VDI", record["VDI"])):
            if owner in self.base.records[name]:
                rest = [each for each in self.base.get(name, owner)["VBDs"] if each != device]
                self.base.set(name, owner, VBDs=rest)
        self.base.remove("VBD", device)
        return ""

    def VIF__create(self, record: dict[str, Any]) -> str:
        self.base.get("network", record["network"])
        made = self.base.make("VIF", **record)
        self._add_card(record["VM"], made)
        return made

    def VIF__destroy(self, card: str) -> str:
        machine = self.base.get("VIF", card)["VM"]
        rest = [each for each in self.base.get("VM", machine)["VIFs"] if each != card]
        self.base.set("VM", machine, VIFs=rest)
        self.base.remove("VIF", card)
        return ""

    def VM_group__create(self, record: dict[str, Any]) -> str:
        return self.base.make("VM_group", **record)

    # Parts

    def _add_card(self, machine: str, card: str) -> None:
        self.base.set("VM", machine, VIFs=[*self.base.get("VM", machine)["VIFs"], card])

    def _must_be(self, machine: str, state: str) -> None:
        now = self.base.get("VM", machine)["power_state"]
        if now != state:
            raise Failure("VM_BAD_POWER_STATE", machine, state.lower(), now.lower())

    def _memory(self, machine: str) -> int:
        return int(self.base.get("VM", machine)["memory_static_max"]) + OVERHEAD

    def _why_not(self, machine: str, host: str) -> Failure | None:
        record = self.base.get("host", host)
        if not self.pool.is_live(host):
            return Failure("HOST_NOT_LIVE")
        if not record["enabled"]:
            return Failure("HOST_DISABLED", host)
        free = int(self.base.get("host_metrics", record["metrics"])["memory_free"])
        if free < self._memory(machine):
            return Failure("HOST_NOT_ENOUGH_FREE_MEMORY", host, str(self._memory(machine)), str(free))
        for device in self.base.get("VM", machine)["VBDs"]:
            disk = self.base.records["VDI"].get(self.base.get("VBD", device)["VDI"])
            if disk and not self.base.pick("PBD", host=host, SR=disk["SR"], currently_attached=True):
                return Failure("VM_REQUIRES_SR", machine, disk["SR"])
        return None

    def _check_devices(self, machine: str) -> None:
        for device in self.base.get("VM", machine)["VBDs"]:
            self.base.get("VDI", self.base.get("VBD", device)["VDI"])

    def _boot(self, machine: str) -> None:
        """The guest comes up, after a while tells its address, and does what its first-boot drive says."""
        started = threading.Timer(self.pool.delays.guest, self._guest_is_up, [machine])
        started.daemon = True
        started.start()

    def _guest_is_up(self, machine: str) -> None:
        with self.base.changed:
            record = self.base.records["VM"].get(machine)
            if record is None or record["power_state"] != "Running" or record["resident_on"] in self.pool.dead:
                return
            number = len(self.pool.addresses) + 1
            address = self.pool.addresses.setdefault(machine, f"10.0.{number // 250}.{number % 250 + 1}")
            guest = self.base.make("VM_guest_metrics", networks={"0/ip": address}, live=True)
            self.base.set("VM", machine, guest_metrics=guest)
        self.pool.on_boot(machine)

    def _halt(self, machine: str) -> str:
        with self.pool.lock:
            record = self.base.get("VM", machine)
            if record["resident_on"] != NULL:
                self.pool.claim_memory(record["resident_on"], -self._memory(machine))
            self.base.set("VM", machine, power_state="Halted", resident_on=NULL, guest_metrics=NULL)
        self.pool.on_halt(machine)
        return ""
