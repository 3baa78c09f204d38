"""What a hypervisor must be able to do for us: one narrow interface, implemented by XenAPI and by libvirt.

Rules for whoever implements it:
* **Every method may be called again** after it was interrupted at any point, in this or another process, and then
  brings about the same as one call would have (a machine that is destroyed already is not an error of `destroy`).
* **Order within a step**: what makes the work findable comes first. `clone` gives the machine a name that alone tells
  that it is ours and unmarked (`Stage.RAW`, see `raw_name`), and the mark afterwards in one write; `destroy` removes
  the disks first and the machine, by which they are found, last; a drive is marked when it is made, then attached.
* **Hosts out of reach**: `observe` goes on without them. Their machines stay in its answer, with `Power.UNKNOWN` and
  what was known of them last, and `mark` works for them; a machine that is left out would be made a second time.
* **Threads**: methods are called by several threads at once, for different machines.
* **Errors** are those of `transfer.errors`, wrapped once, here: UnauthorisedError (credentials), SettingsError (what
  the pool file names is not there), UnreachableError (no answer: whether it was done is unknown), FullError (no room on
  storage, no memory on any host), BusyError (may pass), ConflictError (the machine's state does not allow it), and
  `xen.errors.PoolError` with the hypervisor's own name of the error for all others.

Refuses to do: deciding anything (`xen.plan`), waiting for nodes to enrol (`xen.cloud`).
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec

from xen.observed import Machine, Pool, Stage

RAW_MARK: Final = " being made by fascicle for "


def raw_name(name: str, cluster: str) -> str:
    """Return what a machine is called until it bears its mark: nobody else gives such a name."""
    return f"{name}{RAW_MARK}{cluster}"


class Clone(msgspec.Struct, frozen=True, kw_only=True):
    """A machine to be made. `host_id`: where its disk must be reachable (matters for storage that is not shared)."""

    name: str
    number: int
    template_id: str
    storage_id: str
    host_id: str
    full_copy: bool
    revision: str


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has. `group`: the name of the rule that keeps machines apart, '' for none."""

    vcpus: int
    memory_bytes: int
    disk_bytes: int
    network_id: str
    group: str


class Lock(Protocol):
    """Held for as long as its context; found lost by `check`."""

    def check(self) -> None:
        """Return if the lock is still ours.

        Raises:
            BusyError: another run has it.
        """


class Backend(Protocol):
    """One pool. A context manager (`open_backend`); it is logged out at its end, whatever happens."""

    def observe(self) -> Pool:
        """Return what there is now. Operations of ours that an earlier run left under way are waited for first."""

    def open_lock(self, owner: str, wait_s: float) -> AbstractContextManager[Lock]:
        """Return the pool's one lock of this cluster, held at the pool so that two machines' runs exclude each other.

        A holder that died is overtaken: at once where it can be known to be dead, else after its lease. Entered and
        left in different threads; `check` is called every few seconds, from any thread, and may renew a lease. `owner`
        is `xen.lease.this_process()`.

        Raises:
            BusyError: somebody else has it, still after `wait_s`; says who.
        """

    def clone(self, wish: Clone) -> None:
        """Make a halted machine from the template and mark it `Stage.CLONED`."""

    def configure(self, name: str, shape: Shape) -> None:
        """Give a halted machine its shape, with one network card, and mark it `Stage.CONFIGURED`."""

    def choose_host(self, name: str, preference: Iterable[str]) -> str:
        """Return the first of the hosts (ids) in `preference` that can start this machine now.

        Raises:
            FullError: none of them; says why, of each.
        """

    def attach_first_boot(self, name: str, image: bytes) -> None:
        """Attach an ISO 9660 image as a read-only drive, in place of one that is there; mark it `Stage.BEGUN`."""

    def start(self, name: str, host_id: str) -> None:
        """Start a halted machine on this host; resume a paused or suspended one. One that runs is left alone."""

    def wait_for_address(self, name: str, timeout_s: float) -> str:
        """Return the machine's address as soon as its guest tells it.

        Raises:
            UnreachableError: none within `timeout_s`.
        """

    def mark(self, name: str, stage: Stage) -> None:
        """Write how far the machine has come."""

    def shut_down(self, name: str, timeout_s: float) -> None:
        """Ask the guest to shut down; switch it off after `timeout_s`. One that is halted already is left alone."""

    def destroy(self, machine_id: str) -> None:
        """Remove a machine of ours with all its disks, switching it off first; of whatever stage, also raw or gone.

        By its id and not its name, because two may bear one name when something went wrong.

        Raises:
            ConflictError: its host is gone, so it may still be running there.
        """

    def destroy_disk(self, disk_id: str) -> None:
        """Remove a loose disk of ours."""

    def move(self, name: str, host_id: str) -> None:
        """Migrate a running machine to this host, live.

        Raises:
            ConflictError: it cannot be moved there (its storage is not shared, or the host lacks something).
        """

    def open_host(self, host_id: str, *, is_open: bool) -> None:
        """Let a host take new machines or, for maintenance, not."""

    def snapshot(self, name: str, label: str) -> None:
        """Make a snapshot of the machine's disks; one of that label that is there is left alone."""

    def machine(self, name: str) -> Machine:
        """Return one machine as it is now.

        Raises:
            NotStoredError: there is none of ours of that name.
        """
