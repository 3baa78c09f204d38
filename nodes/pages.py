"""What a store holds, in the order of ids and a page at a time, while it goes on to take and to give.

A page costs the headers of its objects and a few folders, however many objects there are. What is not durable yet is
left out; a damaged header sends its file to quarantine, as every look at it does. Refuses to do: reading stored bytes
(`nodes.scrub` does), signing.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from nodes.census import LEVEL
from nodes.objectfile import Record
from nodes.opening import object_path
from nodes.store import Store
from transfer import disk
from transfer.errors import FascicleError, StorageError
from transfer.objects import is_object_id

ID_CHARACTERS: Final = 64


class Stretch(msgspec.Struct, frozen=True):
    """The objects above one id up to `last`; `complete` when there are none behind it. Ids in hex, in order."""

    last: str
    complete: bool
    sound: list[Record]
    damaged: list[str]
    unreadable: list[str]


def ids_after(
    folder: str, after: str = "", on_unreadable: Callable[[StorageError], None] | None = None
) -> Iterator[str]:
    """Yield the ids in a store's folder that are above `after`, in their order; blocks.

    `on_unreadable` is told of a folder below the first that cannot be read, and the next one follows.

    Raises:
        StorageError: a folder cannot be read, and nobody is to be told.
    """

    def names_in(path: str) -> list[str]:
        try:
            return _names(path)
        except StorageError as error:
            if on_unreadable is None:
                raise
            on_unreadable(error)
            return []

    root = f"{folder}/objects"
    for first in _levels(_names(root), after[:2]):
        for second in _levels(names_in(f"{root}/{first}"), after[2:4] if first == after[:2] else ""):
            names = names_in(f"{root}/{first}/{second}")
            yield from (name for name in names if is_object_id(name) and name > after and name[:4] == first + second)


def read_stretch(store: Store, after: str, count: int) -> Stretch:
    """Return the next `count` objects above `after`; blocks.

    Raises:
        StorageError: a folder cannot be read.
    """
    ids = list(islice(ids_after(str(store.folder), after), count + 1))
    complete = len(ids) <= count
    ids = ids[:count]
    sound: list[Record] = []
    damaged: list[str] = []
    unreadable: list[str] = []
    for object_id in ids:
        try:
            record = store.contains(object_id)
        except StorageError:
            unreadable.append(object_id)
            continue
        if record is not None:
            sound.append(record)
        elif not disk.exists(object_path(store.folder, object_id)):  # else it is there, and not durable yet
            damaged.append(object_id)
    return Stretch(ids[-1] if ids else after, complete, sound, damaged, unreadable)


def read_quarantined(store: Store, after: str, count: int) -> Stretch:
    """Return the next `count` ids above `after` of which only a damaged file is left; blocks.

    Raises:
        StorageError: the quarantine cannot be read.
    """
    names = {entry.name[:ID_CHARACTERS] for entry in disk.entries(f"{store.folder}/quarantine")}
    ids = sorted(name for name in names if is_object_id(name) and name > after)
    complete = len(ids) <= count
    ids = ids[:count]
    gone = [object_id for object_id in ids if not disk.exists(object_path(store.folder, object_id))]
    return Stretch(ids[-1] if ids else after, complete, [], gone, [])


def _levels(names: Iterable[str], least: str) -> list[str]:
    return [name for name in names if LEVEL.match(name) and name >= least]


def _names(path: str) -> list[str]:
    try:
        return [entry.name for entry in disk.entries(path)]
    except FascicleError as error:
        raise StorageError(f"{path} cannot be listed: {error.message}") from error
