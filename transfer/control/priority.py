"""The order between transfers: stat before routine before background. Pure.

Refuses to do: pausing anything (`transfer.control.gate`); the order of objects within a transfer.
"""

from collections.abc import Iterable
from enum import IntEnum


class Priority(IntEnum):
    """How urgent a transfer is; less is sooner."""

    STAT = 0
    ROUTINE = 1
    BACKGROUND = 2


def may_go(mine: Priority, present: Iterable[Priority]) -> bool:
    """Tell whether a transfer may send on while transfers of the `present` priorities do."""
    return all(other >= mine for other in present)
