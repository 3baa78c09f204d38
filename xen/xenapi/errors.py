"""XenAPI's errors by name, as errors of ours; wrapped once, here.

XenAPI answers a failed call with a list of words: the error's name, then details. Names that are not in the table
become `xen.errors.PoolError`, which keeps the name. Refuses to do: SESSION_INVALID and HOST_IS_SLAVE, which the session
acts on.
"""

from collections.abc import Sequence
from typing import Final

from transfer.errors import (
    BusyError,
    ConflictError,
    FascicleError,
    FullError,
    NotStoredError,
    UnauthorisedError,
    UnreachableError,
)
from xen.errors import PoolError

SESSION_INVALID: Final = "SESSION_INVALID"
HOST_IS_SLAVE: Final = "HOST_IS_SLAVE"

KINDS: Final[dict[str, type[FascicleError]]] = {
    "SESSION_AUTHENTICATION_FAILED": UnauthorisedError,
    "RBAC_PERMISSION_DENIED": UnauthorisedError,
    "SR_FULL": FullError,
    "HOST_NOT_ENOUGH_FREE_MEMORY": FullError,
    "HOST_NOT_ENOUGH_PCPUS": FullError,
    "NO_HOSTS_AVAILABLE": FullError,
    "MEMORY_CONSTRAINT_VIOLATION": FullError,
    "OTHER_OPERATION_IN_PROGRESS": BusyError,
    "HOST_STILL_BOOTING": BusyError,
    "HOST_IN_USE": BusyError,
    "VDI_IN_USE": BusyError,
    "TOO_BUSY": BusyError,
    "TASK_CANCELLED": BusyError,
    "DEVICE_DETACH_REJECTED": BusyError,
    "VM_BAD_POWER_STATE": ConflictError,
    "OPERATION_NOT_ALLOWED": ConflictError,
    "VM_IS_TEMPLATE": ConflictError,
    "VM_REQUIRES_SR": ConflictError,
    "VM_REQUIRES_NETWORK": ConflictError,
    "VM_INCOMPATIBLE_WITH_THIS_HOST": ConflictError,
    "HOST_DISABLED": ConflictError,
    "HOST_NOT_LIVE": ConflictError,
    "HOST_CANNOT_ATTACH_NETWORK": ConflictError,
    "HANDLE_INVALID": NotStoredError,
    "UUID_INVALID": NotStoredError,
    "HOST_OFFLINE": UnreachableError,
    "CANNOT_CONTACT_HOST": UnreachableError,
    "HOST_HAS_NO_MANAGEMENT_IP": UnreachableError,
}


def wrap(call: str, details: Sequence[str]) -> FascicleError:
    """Return the error of ours for a call that failed with these words; its message keeps all of them."""
    name = details[0] if details else "INTERNAL_ERROR"
    rest = f" ({', '.join(str(each) for each in details[1:])})" if len(details) > 1 else ""
    message = f"the pool refused {call}: {name}{rest}"
    kind = KINDS.get(name)
    return kind(message) if kind is not None else PoolError(message, name=name, details=details[1:])


def name_of(error: FascicleError) -> str:
    """Return XenAPI's name of the error that `wrap` made this one from."""
    return error.message.partition(": ")[2].partition(" ")[0]
