"""libvirt's errors by number, as errors of ours; wrapped once, here.

Numbers that are not in the table become `xen.errors.PoolError` with libvirt's own name of it. Two things libvirt has no
number for, and says in words only: no room on storage, no memory on the host. Refuses to do: trying again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import libvirt

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

KINDS: Final[dict[int, type[FascicleError]]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NotStoredError,
    libvirt.VIR_ERR_NO_NETWORK: NotStoredError,
    libvirt.VIR_ERR_NO_STORAGE_POOL: NotStoredError,
    libvirt.VIR_ERR_NO_STORAGE_VOL: NotStoredError,
    libvirt.VIR_ERR_AUTH_CANCELLED: UnauthorisedError,
    libvirt.VIR_ERR_AUTH_FAILED: UnauthorisedError,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: UnauthorisedError,
    libvirt.VIR_ERR_ACCESS_DENIED: UnauthorisedError,
    libvirt.VIR_ERR_NO_CONNECT: UnreachableError,
    libvirt.VIR_ERR_INVALID_CONN: UnreachableError,
    libvirt.VIR_ERR_RPC: UnreachableError,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: BusyError,
    libvirt.VIR_ERR_RESOURCE_BUSY: BusyError,
    libvirt.VIR_ERR_OPERATION_INVALID: ConflictError,
    libvirt.VIR_ERR_DOM_EXIST: ConflictError,
    libvirt.VIR_ERR_NO_MEMORY: FullError,
}
FULL: Final = ("no space left on device", "cannot allocate memory", "not enough free memory", "disk quota exceeded")
LOST: Final = (
    "client socket is closed",
    "cannot recv data",
    "connection reset",
    "connection refused",
    "end of file while reading",
    "broken pipe",
    "no route to host",
)
LEVELS: Final = frozenset({"VIR_ERR_NONE", "VIR_ERR_WARNING", "VIR_ERR_ERROR"})  # small numbers, and no errors
NAMES: Final = {
    value: name for name, value in sorted(vars(libvirt).items()) if name.startswith("VIR_ERR_") and name not in LEVELS
}
libvirt.registerErrorHandler(lambda _context, _error: None, None)  # else each error is printed, too


def wrap(doing: str, error: libvirt.libvirtError) -> FascicleError:
    """Return the error of ours for one of libvirt's; its message keeps libvirt's words."""
    code, said = error.get_error_code(), str(error.get_error_message() or error)
    name = NAMES.get(code, f"VIR_ERR_{code}")
    message = f"{doing}: {name}: {said}"
    low = said.lower()
    if any(words in low for words in FULL):
        return FullError(message)
    if any(words in low for words in LOST):
        return UnreachableError(message)
    kind = KINDS.get(code)
    return kind(message) if kind is not None else PoolError(message, name=name, details=(said,))


@contextmanager
def named(doing: str) -> Iterator[None]:
    """Turn libvirt's errors inside the context into ours.

    Raises:
        FascicleError: what libvirt raised.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        raise wrap(doing, error) from error


def is_unsupported(error: FascicleError) -> bool:
    """Tell whether this hypervisor's driver cannot do it at all."""
    return isinstance(error, PoolError) and error.name == "VIR_ERR_NO_SUPPORT"
