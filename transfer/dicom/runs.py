"""Runs of elements that were met before: images of a series mostly have the same headers at the same places.

A run is what a walk steps over at the start of a data set, up to the first header that is not that of an element of
defined length. Where the headers at all places of a known run are the same bytes, a walk would find there what it found
the last time, only other values, and need not be gone: two calls in place of one for each header. Nothing is guessed:
all headers are compared. Of 140 head CTs 127 have a run that is known by then. Refuses to do: runs inside of sequences,
keeping values, keeping more than `RUNS_MAX` runs.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Self

from transfer.dicom.text import MAX_BYTES

RUNS_MAX: Final = 16
SEEN_MAX: Final = 256
ELEMENTS_MIN: Final = 16  # below that it costs what it saves
ELEMENTS_MAX: Final = 1024  # of a peer's making
HEADER_BYTES: Final = 8  # the shortest


class Places(NamedTuple):
    """Where an element's header begins and its value begins and ends."""

    header: int
    start: int
    end: int
    tag: int


class Run(NamedTuple):
    """A run of so many elements over `size_bytes`.

    `read` gives the bytes of its headers, which must be `headers`; the last one is looked at before, since it seldom is
    where it was unless all are. `picks`: tag, begin and end of what is wanted. `passed`: nothing more is.
    """

    size_bytes: int
    elements: int
    read: Callable[[memoryview, int], tuple[Any, ...]]
    headers: tuple[bytes, ...]
    last_at: int
    last_header: bytes
    picks: tuple[tuple[int, int, int], ...]
    passed: bool
    last_group: int

    @classmethod
    def of(cls, places: Sequence[Places], view: memoryview, wanted: "Wanted") -> Self:
        """Return the run of all elements at `places`, one behind the other in `view`."""
        offset = places[0].header
        reader = struct.Struct("<" + "".join(f"{at.start - at.header}s{at.end - at.start}x" for at in places))
        picks: dict[int, tuple[int, int, int]] = {}
        passed = False
        for at in places:
            passed = passed or at.tag > wanted.last
            if at.tag in wanted.tags and not passed and at.tag not in picks:
                stop = min(at.end, at.start + MAX_BYTES)
                picks[at.tag] = (at.tag, at.start - offset, stop - offset)
        headers = reader.unpack_from(view, offset)
        return cls(
            size_bytes=reader.size,
            elements=len(places),
            read=reader.unpack_from,
            headers=headers,
            last_at=places[-1].header - offset,
            last_header=headers[-1][:HEADER_BYTES],
            picks=tuple(picks.values()),
            passed=passed,
            last_group=places[-1].tag >> 16,
        )

    def is_at(self, view: memoryview, offset: int) -> bool:
        """Tell whether `view` has this run at `offset`, whole."""
        if offset + self.size_bytes > len(view):
            return False
        last = offset + self.last_at
        return view[last : last + HEADER_BYTES] == self.last_header and self.read(view, offset) == self.headers


class Wanted:
    """Tags whose values walks keep until they meet one above `last`, and the runs that these walks have met.

    For any thread: what two note at once may be noted once.
    """

    def __init__(self, tags: Iterable[int], last: int) -> None:
        self.tags, self.last = frozenset(tags), last
        self._runs: dict[object, tuple[Run, ...]] = {}
        self._seen: dict[object, None] = {}

    def find(self, manner: object, view: memoryview, offset: int) -> Run | None:
        """Return the run at `offset` if it was met before by a walk in the same `manner`."""
        for run in self._runs.get(manner, ()):
            if run.is_at(view, offset):
                return run
        return None

    def note(self, manner: object, elements: int, size_bytes: int, run: Callable[[], Run]) -> None:
        """Note that a walk stepped over so many elements of so many bytes; `run` makes a run of them.

        It is made when as many took as many bytes before: what never comes again is not worth it.
        """
        if not ELEMENTS_MIN <= elements <= ELEMENTS_MAX:
            return
        mark = (manner, elements, size_bytes)
        if mark in self._seen:
            self._runs[manner] = (run(), *self._runs.get(manner, ()))[:RUNS_MAX]
            return
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[mark] = None
