"""The one error that hypervisors add to ours: an error of theirs, by its own name.

Refuses to do: mapping what has a meaning of ours (`xen.xenapi.errors`, `xen.libvirt.errors`).
"""

from collections.abc import Sequence

from transfer.errors import FascicleError


class PoolError(FascicleError):
    """The pool refused, for a reason that only its administrator can judge: `name` and `details` are the pool's own."""

    code = "pool"

    def __init__(self, message: str, *, name: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.details = tuple(details)
