"""The number of this life of the node's process: it only grows, also where the clock was set back.

Heartbeats carry it (`transfer.heartbeat`), so that what a former life sent is worth nothing when it is sent again. It
is the time of the start, or one more than the life before, which DATA/life tells. Refuses to do: keeping a node from
serving where the disk takes no more.
"""

from pathlib import Path
from typing import Final

from transfer import disk
from transfer.durable import write_file_durably
from transfer.errors import FascicleError, NotStoredError
from transfer.log import get_logger

DIGITS_MAX: Final = 20  # of a number below 2^64
log = get_logger()


def begin_life(path: Path, now_ns: int) -> int:
    """Return the number of a new life, larger than all that were returned before for this file; blocks."""
    number = max(now_ns, _last(path) + 1)
    try:
        write_file_durably(path, b"%d" % number)
    except FascicleError as error:
        log.warning("life_not_kept", code=error.code, reason=error.message)
    return number


def _last(path: Path) -> int:
    """Return the number of the life before; 0 where there is none that can be read."""
    try:
        descriptor = disk.open_to_read(str(path))
        try:
            return int(bytes(disk.read_at(descriptor, DIGITS_MAX, 0)))
        finally:
            disk.close(descriptor)
    except NotStoredError:
        return 0
    except (FascicleError, ValueError) as error:
        log.warning("life_unknown", reason=str(error))
        return 0
