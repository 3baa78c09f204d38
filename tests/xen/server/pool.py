"""A pool of hosts as the server's database has it, and what its administrator and fate do to it.

Hosts with memory, storage, a network, a template; hosts that die and return, a coordinator that is succeeded, storage
that fills up, errors that are injected. What XenAPI's calls do is in `machines.py` and `calls.py`.
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.xen.server.database import NULL, Database, Failure

MIB = 1 << 20
GIB = 1 << 30
OVERHEAD = 12 * MIB  # that a host needs for a machine beside its own memory


@dataclass
class Delays:
    """How long things take, in seconds."""

    clone: float = 0.0
    task: float = 0.0
    guest: float = 0.0
    shutdown: float = 0.0


@dataclass
class Injected:
    """An error that a call answers with, so many times."""

    words: list[str]
    times: int


@dataclass
class Pool:
    """The pool's state beside its database."""

    database: Database = field(default_factory=Database)
    delays: Delays = field(default_factory=Delays)
    user: str = "root"
    secret: str = "correct horse"
    groups: bool = True
    coordinator: str = NULL
    sessions: set[str] = field(default_factory=set)
    session_calls_max: int = 0  # a session ends after so many calls; 0: never
    session_calls: Counter[str] = field(default_factory=Counter)
    dead: set[str] = field(default_factory=set)
    injected: dict[str, Injected] = field(default_factory=dict)
    violations: list[list[str]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    contents: dict[str, bytes] = field(default_factory=dict)
    hang_shutdown: bool = False
    addresses: dict[str, str] = field(default_factory=dict)
    epoch: int = 1
    on_boot: Callable[[str], None] = lambda machine: None
    on_halt: Callable[[str], None] = lambda machine: None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add_host(self, name: str, address: str, memory: int) -> str:
        """Add a host; the first is the coordinator."""
        base = self.database
        metrics = base.make("host_metrics", memory_total=str(memory), memory_free=str(memory), live=True)
        host = base.make("host", name_label=name, address=address, metrics=metrics, enabled=True)
        if self.coordinator == NULL:
            self.coordinator = host
            base.make("pool", name_label="pool", master=host)
        for storage in base.records["SR"]:
            if base.get("SR", storage)["shared"]:
                base.make("PBD", host=host, SR=storage, currently_attached=True)
        return host

    def add_storage(self, name: str, size: int, hosts: list[str]) -> str:
        """Add a storage repository that these hosts reach."""
        base = self.database
        storage = base.make("SR", name_label=name, physical_size=str(size), shared=len(hosts) > 1, type="nfs")
        for host in hosts:
            base.make("PBD", host=host, SR=storage, currently_attached=True)
        return storage

    def add_template(self, name: str, storage: str, network: str, disk: int) -> str:
        """Add a template with a disk and a network card."""
        base = self.database
        template = base.make(
            "VM",
            name_label=name,
            is_a_template=True,
            power_state="Halted",
            VCPUs_max="2",
            VCPUs_at_startup="2",
            **dict.fromkeys(("memory_static_max", "memory_dynamic_max", "memory_dynamic_min"), str(2 * GIB)),
            memory_static_min=str(256 * MIB),
            other_config={"base": "debian"},
        )
        disk_ref = base.make("VDI", name_label=f"{name} disk", SR=storage, virtual_size=str(disk), type="system")
        self.use(storage, disk)
        self.attach_disk(template, disk_ref, "0", bootable=True)
        card = base.make("VIF", VM=template, network=network, device="0")
        base.set("VM", template, VIFs=[card])
        return template

    def attach_disk(self, machine: str, disk: str, device: str, *, bootable: bool) -> str:
        """Add a block device."""
        base = self.database
        made = base.make("VBD", VM=machine, VDI=disk, userdevice=device, bootable=bootable, type="Disk", mode="RW")
        base.set("VM", machine, VBDs=[*base.get("VM", machine)["VBDs"], made])
        base.set("VDI", disk, VBDs=[*base.get("VDI", disk)["VBDs"], made])
        return made

    def use(self, storage: str, count: int) -> None:
        """Take room on a storage repository, or with a negative count give it back."""
        with self.lock:
            record = self.database.get("SR", storage)
            used = int(record["physical_utilisation"]) + count
            if used > int(record["physical_size"]):
                raise Failure("SR_FULL", str(count), record["physical_size"])
            self.database.set("SR", storage, physical_utilisation=str(used))

    def claim_memory(self, host: str, count: int) -> None:
        """Take memory of a host, or with a negative count give it back."""
        with self.lock:
            metrics = self.database.get("host", host)["metrics"]
            free = int(self.database.get("host_metrics", metrics)["memory_free"]) - count
            if free < 0:
                raise Failure("HOST_NOT_ENOUGH_FREE_MEMORY", host, str(count), str(free + count))
            self.database.set("host_metrics", metrics, memory_free=str(free))

    def is_live(self, host: str) -> bool:
        """Tell whether a host is live as the pool knows."""
        return bool(self.database.get("host_metrics", self.database.get("host", host)["metrics"])["live"])

    # Fate

    def kill_host(self, host: str) -> None:
        """A host loses power: its machines stop; the pool only knows that it is not live."""
        self.dead.add(host)
        self.database.set("host_metrics", self.database.get("host", host)["metrics"], live=False)
        for machine in self.database.pick("VM", resident_on=host):
            self.on_halt(machine)

    def revive_host(self, host: str, *, machines_run: bool = False) -> None:
        """The host is back, its machines halted; or it was only cut off and they run."""
        self.dead.discard(host)
        self.database.set("host_metrics", self.database.get("host", host)["metrics"], live=True)
        for machine in self.database.pick("VM", resident_on=host):
            if machines_run:
                self.on_boot(machine)
            else:
                record = self.database.get("VM", machine)
                self.claim_memory(host, -int(record["memory_static_max"]) - OVERHEAD)
                self.database.set("VM", machine, power_state="Halted", resident_on=NULL, guest_metrics=NULL)

    def fail_over(self, host: str) -> None:
        """Another host becomes coordinator: sessions and tasks are forgotten, event tokens mean nothing."""
        with self.database.changed:
            self.coordinator = host
            self.database.set("pool", next(iter(self.database.records["pool"])), master=host)
            self.expire_sessions()
            self.database.forget("task")
            for record in self.database.records["VM"].values():
                record["current_operations"].clear()
            self.epoch += 1
            self.database.changed.notify_all()

    def expire_sessions(self) -> None:
        """End every session."""
        with self.database.changed:
            self.sessions.clear()
            self.database.forget("session")

    def inject(self, method: str, words: list[str], times: int = 1) -> None:
        """Have a call answer with an error."""
        self.injected[method] = Injected(words, times)

    def machines(self) -> list[dict[str, Any]]:
        """Return the records of what is neither a template nor a snapshot."""
        records = self.database.records["VM"].values()
        return [each for each in records if not each["is_a_template"] and not each["is_a_snapshot"]]
