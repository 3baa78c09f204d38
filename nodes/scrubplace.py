"""Where the scrubber is: pure steps from one object to the next, from one pass to the next, and how long to rest.

A pass goes through the ids in their order. Refuses to do: reading, clocks (callers pass the time, Unix seconds).
"""

from typing import Final

import msgspec

SEEK_BYTES: Final = 64 << 10  # what finding a file costs a disk, in bytes that it could have read instead


class Place(msgspec.Struct, frozen=True):
    """The last id that was read in this pass (hex; "" at its beginning), when the pass began, what it found."""

    after: str = ""
    began_at_s: float = 0.0
    objects: int = 0
    bytes: int = 0
    damaged: int = 0
    unreadable: int = 0
    done: bool = True  # before the first pass


def begin(now_s: float) -> Place:
    """Return the beginning of a pass."""
    return Place(began_at_s=now_s, done=False)


def sound(place: Place, object_id: str, stored_bytes: int) -> Place:
    """Return the place after an object that is as it was written."""
    replaced = {"after": object_id, "objects": place.objects + 1, "bytes": place.bytes + stored_bytes}
    return msgspec.structs.replace(place, **replaced)


def damaged(place: Place, object_id: str) -> Place:
    """Return the place after an object that went to quarantine."""
    return msgspec.structs.replace(place, after=object_id, damaged=place.damaged + 1)


def unreadable(place: Place, object_id: str) -> Place:
    """Return the place after an object that the disk would not give."""
    return msgspec.structs.replace(place, after=object_id, unreadable=place.unreadable + 1)


def gone(place: Place, object_id: str) -> Place:
    """Return the place after an object that was set aside by somebody else meanwhile."""
    return msgspec.structs.replace(place, after=object_id)


def end(place: Place) -> Place:
    """Return the end of a pass."""
    return msgspec.structs.replace(place, done=True)


def rest_s(place: Place, now_s: float, every_s: float) -> float:
    """Return how long to wait before the next pass; a clock that was set back does not put it off."""
    if not place.done:
        return 0.0
    return min(max(0.0, place.began_at_s + every_s - now_s), every_s)


def due_s(due: float, now_s: float, read_bytes: int, bytes_per_s: float) -> float:
    """Return when the next bytes may be read; time that was not used is not made up for."""
    return max(due, now_s) + read_bytes / bytes_per_s
