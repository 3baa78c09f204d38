"""What a plan is made of: one frozen value for each step, and the sentence that is printed before it is done.

Refuses to do: the steps (`xen.steps`), choosing them (`xen.plan`).
"""

from typing import ClassVar

from xen.observed import Value


class Action(Value, frozen=True, kw_only=True):
    """One step for one node, or for a disk that is left over; `name` is whose."""

    name: str
    phase: ClassVar[int] = 1

    def sentence(self) -> str:
        """Return what will be done, for people."""
        raise NotImplementedError


class Destroy(Action, frozen=True, kw_only=True):
    """Remove a machine on which nothing is needed. `revoke`: its node is enrolled still."""

    machine_id: str
    reason: str
    revoke: bool = False
    phase: ClassVar[int] = 0

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"remove {self.name}: {self.reason}"


class DestroyDisk(Action, frozen=True, kw_only=True):
    """Remove a disk of ours that no machine has."""

    disk_id: str
    phase: ClassVar[int] = 0

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"remove the disk {self.name}, which no machine has"


class Make(Action, frozen=True, kw_only=True):
    """Clone the template."""

    number: int
    template_id: str
    storage_id: str
    host_id: str

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"make {self.name}"


class Configure(Action, frozen=True, kw_only=True):
    """Give a machine its processors, memory, disk, network and rule of spreading."""

    network_id: str

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"configure {self.name}"


class Begin(Action, frozen=True, kw_only=True):
    """Invite the node, write its first-boot drive and start it, on the first host in `host_ids` that takes it."""

    number: int
    host_ids: tuple[str, ...]
    host_name: str

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"start {self.name} for the first time, on {self.host_name} if it takes it"


class Start(Action, frozen=True, kw_only=True):
    """Start a machine whose node has enrolled before."""

    host_ids: tuple[str, ...]
    host_name: str

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"start {self.name} again, on {self.host_name} if it takes it"


class Await(Action, frozen=True, kw_only=True):
    """Wait until the machine has an address and its node has enrolled and serves."""

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"wait until {self.name} serves"


class Leave(Action, frozen=True, kw_only=True):
    """Tell the gateway to empty the node. Done for all that leave before any is waited for."""

    reason: str
    phase: ClassVar[int] = 2

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"drain {self.name}: {self.reason}"


class Retire(Action, frozen=True, kw_only=True):
    """When no object needs the node any more: shut its machine down, remove it, revoke its certificate."""

    machine_id: str
    phase: ClassVar[int] = 3

    def sentence(self) -> str:
        """Return what will be done, for people."""
        return f"remove {self.name} as soon as nothing there is the last replica"


class Plan(Value, frozen=True, kw_only=True):
    """Steps in order; those of one phase are done side by side for different machines, phase after phase.

    `notes`: what stands in the way of things and needs nobody now, or somebody.
    """

    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the plan for people."""
        return [*(f"{index}. {each.sentence()}" for index, each in enumerate(self.actions, 1)), *self.notes]
