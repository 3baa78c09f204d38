"""Temporary files of processes that were killed while they wrote (`transfer.durable`), cleared when a role starts.

    NAME.PID.NUMBER.temporary

Whoever clears holds the lock of what the folder belongs to. `fascicle up` and `enroll` write into a role's folder
without it: as long as a process of that PID lives, its file stays. Everything blocks. Refuses to do: folders below, any
other name, uploads (`nodes.opening`, `agent.spool`).
"""

import os
import re
from pathlib import Path
from typing import Final

from transfer import disk
from transfer.errors import FascicleError
from transfer.log import get_logger

NAME: Final = re.compile(r".+\.([1-9][0-9]{0,6})\.[0-9]+\.temporary\Z", re.DOTALL)
log = get_logger()


def clear_leftovers(*folders: Path) -> None:
    """Remove what nobody writes any more from each folder that is there; call it before this process writes there.

    What cannot be removed is told, and keeps nobody from its work.
    """
    for folder in folders:
        try:
            count = _clear(str(folder))
        except FascicleError as error:
            log.warning("leftovers_not_cleared", folder=str(folder), reason=error.message)
            continue
        if count:
            log.info("leftovers_cleared", folder=str(folder), files=count)


def _clear(folder: str) -> int:
    if not disk.exists(folder):
        return 0
    found = [
        entry.path
        for entry in disk.entries(folder)
        if (named := NAME.match(entry.name)) and entry.is_file(follow_symlinks=False) and not _writes(int(named[1]))
    ]
    for path in found:
        disk.unlink(path)
    return len(found)


def _writes(pid: int) -> bool:
    """Tell whether a process of this number may still be writing: not this one, which has only begun.

    In a container the process that was killed had the same number.
    """
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is somebody else's
        return True
    return True
