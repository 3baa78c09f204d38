"""What is wanted at a pool: how many nodes, of which shape, from what, how spread. Frozen, without any secret.

Refuses to do: reading files (`xen.poolfile`), deciding (`xen.plan`).
"""

import re
from typing import Final

from xen.observed import Value

NUMBER_MAX: Final = 9999


class Wanted(Value, frozen=True, kw_only=True):
    """`cluster` marks what is ours. `per_host_max`: most nodes on one host, 0 for no limit.

    `grace_s`: how long a node whose host or machine is gone may come back before another takes its place.
    `full_copy`: disks of their own, not copy-on-write ones that share the template's.
    """

    cluster: str
    count: int
    prefix: str
    template: str
    storage: str
    network: str
    vcpus: int
    memory_bytes: int
    disk_bytes: int
    full_copy: bool = False
    per_host_max: int = 0
    grace_s: float = 600.0
    revision: str = ""

    def name(self, number: int) -> str:
        """Return the name of the node with this number (from 1)."""
        return f"{self.prefix}{number:02}"


def number_of(name: str, prefix: str) -> int | None:
    """Return the number in a name that `Wanted.name` made with `prefix`; None for every other name."""
    found = re.fullmatch(re.escape(prefix) + r"([0-9]{2,4})", name)
    if not found:
        return None
    number = int(found[1])
    return number if 1 <= number <= NUMBER_MAX and name == f"{prefix}{number:02}" else None
