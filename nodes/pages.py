"""What a store holds, in the order of ids and a page at a time, while it goes on to take and to give.

A page costs the headers of its objects and a few folders, however many objects there are. What is not durable yet is
left out; a damaged header sends its file to quarantine, as every look at it does. Of a folder that cannot be read
nothing is said: a page ends before it, and none begins in it; who asks may go on behind it. Refuses to do: reading
stored bytes (`nodes.scrub` does), signing.
"""

from collections.abc import Callable, Iterable, Iterator
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
    for _, found in _folders_after(folder, after):
        if not isinstance(found, StorageError):
            yield from found
        elif on_unreadable is None:
            raise found
        else:
            on_unreadable(found)


def _folders_after(folder: str, after: str) -> Iterator[tuple[str, list[str] | StorageError]]:
    """Yield the digits with which the ids of each folder begin, and these ids, or why it cannot be read.

    A folder that can only hold ids up to `after` is not looked at.

    Raises:
        StorageError: the folder of all objects cannot be read.
    """
    root = f"{folder}/objects"
    least = f"{int(after, 16) + 1:064x}" if after else ""
    if len(least) > ID_CHARACTERS:  # `after` is the last id that there can be
        return
    for first in _levels(_names(root), least[:2]):
        try:
            seconds = _levels(_names(f"{root}/{first}"), least[2:4] if first == least[:2] else "")
        except StorageError as error:
            yield first, error
            continue
        for second in seconds:
            prefix = first + second
            try:
                names = _names(f"{root}/{first}/{second}")
            except StorageError as error:
                yield prefix, error
                continue
            yield prefix, [name for name in names if is_object_id(name) and name >= least and name[:4] == prefix]


def read_stretch(store: Store, after: str, count: int) -> Stretch:
    """Return the next `count` objects above `after`, or those before a folder that cannot be read; blocks.

    Raises:
        StorageError: the very next folder cannot be read, or that of all objects.
    """
    ids, end = _next_ids(str(store.folder), after, count + 1)
    complete = len(ids) <= count and not end
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
    return Stretch(end or (ids[-1] if ids else after), complete, sound, damaged, unreadable)


def _next_ids(folder: str, after: str, count: int) -> tuple[list[str], str]:
    """Return `count` ids above `after`, or those before a folder that cannot be read and the id just below it, or all.

    What is behind that folder is not looked at: a disk that fails may take seconds for each.

    Raises:
        StorageError: nothing above `after` comes before it.
    """
    ids: list[str] = []
    for prefix, found in _folders_after(folder, after):
        if isinstance(found, StorageError):
            lowest = int(prefix.ljust(ID_CHARACTERS, "0"), 16)
            end = f"{lowest - 1:064x}" if lowest else ""
            if end <= after:
                raise found
            return ids, end
        ids += found
        if len(ids) >= count:
            break
    return ids[:count], ""


def read_quarantined(store: Store, after: str, count: int) -> Stretch:
    """Return the next `count` ids above `after` of which only a damaged file is left; blocks.

    Where that cannot be told, since the disk does not say whether another is there, they are `unreadable`.

    Raises:
        StorageError: the quarantine cannot be read.
    """
    names = {entry.name[:ID_CHARACTERS] for entry in disk.entries(f"{store.folder}/quarantine")}
    ids = sorted(name for name in names if is_object_id(name) and name > after)
    complete = len(ids) <= count
    ids = ids[:count]
    gone: list[str] = []
    unreadable: list[str] = []
    for object_id in ids:
        try:
            if not disk.exists(object_path(store.folder, object_id)):
                gone.append(object_id)
        except StorageError:
            unreadable.append(object_id)
    return Stretch(ids[-1] if ids else after, complete, [], gone, unreadable)


def _levels(names: Iterable[str], least: str) -> list[str]:
    return [name for name in names if LEVEL.match(name) and name >= least]


def _names(path: str) -> list[str]:
    try:
        return [entry.name for entry in disk.entries(path)]
    except FascicleError as error:
        raise StorageError(f"{path} cannot be listed: {error.message}") from error
