"""What a refusal of one object means for it. Pure.

A node that is full, or whose disk fails, is passed over for this object; bytes that arrived damaged, or in an encoding
that an older node does not know, are sent again, raw; a node that is busy, or cannot make replicas now, is asked again
until the sender's patience ends, and with a new ticket when the old one has expired meanwhile; anything else is final.
"""

from enum import Enum, auto
from typing import Final

from transfer.errors import (
    BusyError,
    CorruptError,
    FascicleError,
    FullError,
    SettingsError,
    StorageError,
    UnauthorisedError,
    UnreachableError,
)
from transfer.work import Item

DAMAGED_MAX: Final = 3


class Fate(Enum):
    """What happens to the object next."""

    AGAIN = auto()
    LATER = auto()
    ELSEWHERE = auto()
    RENEW = auto()
    FAIL = auto()


def judge(item: Item, error: FascicleError, *, nodes: set[str], node_id: str, patient: bool) -> Fate:
    """Decide what happens to `item`, refused by `node_id` with `error`; `item` is not changed.

    `nodes` are those that the transfer may use, `patient` whether the sender may still wait.
    """
    match error:
        case CorruptError():
            return Fate.AGAIN if item.damaged_count < DAMAGED_MAX else Fate.FAIL
        case SettingsError() if not item.raw_only:
            return Fate.AGAIN
        case FullError() | StorageError():
            others = nodes - item.refused_by.keys() - {node_id}
            return Fate.ELSEWHERE if others else Fate.FAIL
        case BusyError() | UnreachableError():
            return Fate.LATER if patient else Fate.FAIL
        case UnauthorisedError():
            return Fate.RENEW if patient else Fate.FAIL
    return Fate.FAIL
