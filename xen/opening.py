"""Opens the back end that a pool file names; its library is imported only then.

Refuses to do: anything with it.
"""

import importlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from transfer.errors import SettingsError
from xen.backend import Backend
from xen.poolfile import PoolFile

MODULES: Final = {"xenapi": "xen.xenapi.backend", "libvirt": "xen.libvirt.backend"}
LIBRARIES: Final = {"XenAPI": "xenapi", "libvirt": "libvirt", "pycdlib": "pycdlib"}


def open_backend(file: PoolFile, path: Path) -> AbstractContextManager[Backend]:
    """Return the back end as a context; paths in the file are relative to its folder.

    Both back ends have `open_backend(table, cluster, beside)`.

    Raises:
        SettingsError: a library is missing; what the table names cannot be used.
    """
    table = file.xenapi if file.back_end == "xenapi" else file.libvirt
    try:
        module: Any = importlib.import_module(MODULES[file.back_end])
        importlib.import_module("pycdlib")
    except ModuleNotFoundError as error:
        if error.name in LIBRARIES:
            raise SettingsError(f"the library {error.name} is missing: pip install 'fascicle[xen]'") from error
        raise
    opened: AbstractContextManager[Backend] = module.open_backend(table, file.cluster, path.resolve().parent)
    return opened
