"""What orders the lives of a node's process: a number that only grows, whatever the clock says (DATA/life).

The gateway takes a heartbeat of an earlier life for an old datagram that is sent again. If lives were ordered by the
clock alone, a node that is started again with a clock that was set back would count as dead until the clock has come
as far as it had been. Refuses to do: surviving the loss of its disk (the gateway's next start forgets what it heard).
"""

from pathlib import Path

from transfer.durable import write_file_durably
from transfer.errors import FascicleError
from transfer.log import get_logger

log = get_logger()


def next_life(path: Path, now_ns: int) -> int:
    """Return the number of this life: the time, or the one after the last life's where the clock is behind. Blocks.

    Where it cannot be kept, as on a full disk, the next life goes by the clock.
    """
    last = _last(path)
    number = max(now_ns, last + 1)
    if number > now_ns:
        log.warning("clock_is_behind", seconds=round((last - now_ns) / 1e9, 1), advice="set the clocks (NTP)")
    try:
        write_file_durably(path, str(number).encode())
    except FascicleError as error:
        log.warning("life_not_kept", code=error.code, reason=error.message)
    return number


def _last(path: Path) -> int:
    """Return the number of the last life; 0 where none is known."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return 0
