"""File descriptors: as many as the system lets this process have, asked for once at start.

Distributions give processes 1024 and allow far more; a listener that runs out of them can serve nobody, and not open
files either. Refuses to do: asking for more than an administrator allows.
"""

import resource
from typing import Final

from transfer.log import get_logger

WANTED_MAX: Final = 1 << 20  # what kernels allow unless told otherwise (fs.nr_open)
OTHERS: Final = 256  # files, databases, pipes, flows to others


def raise_limit() -> int:
    """Raise the limit of open descriptors to the hard one; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_MAX if hard == resource.RLIM_INFINITY else min(hard, WANTED_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft if soft != resource.RLIM_INFINITY else WANTED_MAX
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        get_logger().warning("descriptor_limit_kept", limit=soft, reason=str(error))
        return soft
    return wanted


def fit(wanted: int, limit: int) -> int:
    """Return how many of `wanted` connections there is room for below a `limit` of descriptors; at least 8."""
    return max(8, min(wanted, limit - OTHERS))
