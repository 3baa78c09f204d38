"""Room that stays free on a disk, so that what was begun can be ended: below it nothing new is begun.

Refuses to do: making room.
"""

from transfer import disk
from transfer.errors import FullError


def require(folder: str, reserve_bytes: int, owner: str) -> None:
    """Look whether the file system of `folder` has more than `reserve_bytes` free; `owner` names it in the error.

    Raises:
        FullError: it has less.
    """
    free = disk.free_bytes(folder)
    if free < reserve_bytes:
        raise FullError(f"{owner}: {free} bytes free, below the reserve of {reserve_bytes}; make room")
