"""What the gateway knows of our nodes, and what is asked of it; the other half of what planning looks at.

`Cloud` is the narrow interface (`xen.gatewaylink` asks a real gateway; tests have one in memory). Refuses to do:
guessing from silence: what is not known is said to be not known.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from xen.observed import Value

State = Literal["live", "silent", "unknown", "absent"]


class Node(Value, frozen=True, kw_only=True):
    """A node as the gateway sees it. `silent_s`: since its last sign of life, None if not known.

    `draining`: it gets nothing new and what it has is copied elsewhere. `needed_objects`: of these it holds the last
    replica that there is, so that destroying it would lose them. `free_bytes` of `total_bytes`: its room by its last
    sign of life; what it put aside and does not need is not free yet. A total of 0: not known.
    """

    name: str
    state: State
    silent_s: float | None = None
    draining: bool = False
    needed_objects: int = 0
    free_bytes: int = 0
    total_bytes: int = 0


ABSENT = Node(name="", state="absent")


class Cloud(Protocol):
    """One gateway. Every method raises UnreachableError, UnauthorisedError, or what the gateway named."""

    async def nodes(self) -> Mapping[str, Node]:
        """Return every node that it knows; one that never enrolled is not among them."""

    async def invite(self, name: str, hosts: Sequence[str]) -> str:
        """Return a token by which the node may enrol once, with a certificate for `hosts`."""

    async def drain(self, name: str) -> None:
        """Let the node be emptied: nothing new goes there, what it has is copied elsewhere. Again does no harm."""

    async def needed_objects(self, name: str) -> int:
        """Return of how many objects this node holds the last replica, counted now."""

    async def revoke(self, name: str) -> None:
        """End the node's certificates; it is counted no more."""

    async def tell_domain(self, name: str, domain: str) -> None:
        """Say which failure domain (host) the node is in now."""
