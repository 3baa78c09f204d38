"""One process a folder: an advisory lock that the kernel lets go of when its holder dies, by whatever death.

Refuses to do: waiting. Whoever comes second has a wrong configuration, and is told so.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from transfer.durable import make_folder_durably
from transfer.errors import FascicleError, SettingsError


@contextlib.contextmanager
def open_lock(folder: Path) -> Iterator[None]:
    """Make `folder` durably if need be, and hold its lock.

    Raises:
        SettingsError: another process holds it, or the folder cannot be made or written.
    """
    try:
        make_folder_durably(folder)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, FascicleError) as error:
        raise SettingsError(f"{folder}: cannot be used: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise SettingsError(f"{folder}: in use by another agent; give each agent folders of its own") from error
    finally:
        os.close(descriptor)
