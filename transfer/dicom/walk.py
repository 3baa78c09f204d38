"""The walk over a data set's elements (PS3.5 7.1, 7.5), from one header to the next, over bytes as they arrive.

    explicit VR   tag 4 | VR 2 | length 2 | value          VR in `_SHORT`
                  tag 4 | VR 2 | 0 0 | length 4 | value    every other VR; FFFFFFFF is "undefined"
    implicit VR   tag 4 | length 4 | value
    item          tag 4 (FFFE,xxxx) | length 4             in both; E000 item, E00D end of item, E0DD end of sequence

Only headers are looked at; of the values, only those asked for are kept, at most `MAX_BYTES` of each. Sequences and
items of defined length, and native pixel data, are stepped over by their length. Those of undefined length, and
fragments, are walked with an explicit stack. Lenient where readers in the field are (a VR that is no VR has a 16-bit
length, delimiters that close nothing are passed, the first element shows whether VRs are explicit after all).
Refuses to do: I/O, decoding values, sequences deeper than `MAX_DEPTH`, more than `MAX_ELEMENTS` headers.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from transfer.dicom.runs import Places, Run, Wanted
from transfer.dicom.text import MAX_BYTES
from transfer.errors import NotDicomError, TruncatedError

MAX_DEPTH: Final = 64
MAX_ELEMENTS: Final = 10_000_000
UNDEFINED: Final = 0xFFFFFFFF

_SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_ITEM_GROUP: Final = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_ZEROS: Final = bytes(65536)


class Layout(NamedTuple):
    """How headers are written: `header` reads group, element, [VR,] length; `long_length` a 32-bit length."""

    implicit: bool
    header: Callable[[memoryview, int], tuple[Any, ...]]
    long_length: Callable[[memoryview, int], tuple[Any, ...]]


IMPLICIT_LITTLE: Final = Layout(True, struct.Struct("<HHL").unpack_from, struct.Struct("<L").unpack_from)
EXPLICIT_LITTLE: Final = Layout(False, struct.Struct("<HH2sH").unpack_from, struct.Struct("<L").unpack_from)
EXPLICIT_BIG: Final = Layout(False, struct.Struct(">HH2sH").unpack_from, struct.Struct(">L").unpack_from)


def is_vr(code: bytes) -> bool:
    """Tell whether two bytes can be a value representation, of today or to come: two capital letters."""
    return code.isalpha() and code.isupper()


class Walk:
    """One walk: feed it the data set in pieces of any size, then `finish`.

    `values` holds what was found of `wanted` (tags as 32-bit numbers): the first occurrence, at the top level, until
    a tag above its last is seen. Then `passed` is true: nothing more will be found. `layout` is as it is found to be.
    """

    def __init__(self, layout: Layout, wanted: Wanted) -> None:
        self.values: dict[int, bytes] = {}
        self.passed = False
        self.stopped_at = 0  # where in the view that was fed last the first header or wanted value is not yet passed
        self.last_group = 0  # of the last element at the top level
        self._wanted = wanted
        self.layout = layout
        self._in_sequence = False  # between the items of a sequence, or between fragments
        self._stack: list[tuple[Layout, bool]] = []  # the two above, of what is around each open item and sequence
        self._first = True
        self._in_zeros = False  # trailing zero bytes have begun
        self._left = MAX_ELEMENTS
        self._skip = 0  # bytes of a value still to come
        self._held = b""  # the start of a header or wanted value that is not whole yet

    def feed(self, view: memoryview, start: int = 0, *, until_passed: bool = False) -> None:
        """Walk over the bytes of `view` from `start`; with `until_passed`, stop as soon as `passed`.

        Raises:
            NotDicomError: nested too deep, too many elements, or something that is neither element nor item.
        """
        if self._held:
            view, start, self._held = memoryview(self._held + bytes(view[start:])), 0, b""
        offset, size = start + self._skip, len(view)
        if offset < size:
            offset = self._walk(view, offset, until_passed)
        self.stopped_at = offset
        self._skip = max(0, offset - size)
        if offset < size and not (until_passed and self.passed):
            self._held = bytes(view[offset:])

    def finish(self) -> None:
        """Check that the walk ends where an element ends.

        Raises:
            TruncatedError: a value, header, item or sequence reaches beyond the end.
        """
        if self._skip:
            raise TruncatedError(f"truncated: the last element reaches {self._skip} bytes beyond the end")
        if self._stack:
            raise TruncatedError("truncated: a sequence or the pixel data is not closed at the end")
        if any(self._held):
            raise TruncatedError("truncated: the end is inside an element")

    def _walk(self, view: memoryview, offset: int, until_passed: bool) -> int:
        """Return where the first header or wanted value starts that is not whole in `view`, or beyond its end."""
        if self._first and len(view) - offset >= 8:
            self._look_at_first(bytes(view[offset + 4 : offset + 6]))
        while not self._in_zeros:
            if not self._in_sequence:
                offset = self._elements(view, offset, until_passed)
            if until_passed and self.passed:
                return offset
            after = self._structure(view, offset)
            if after is None:
                return offset
            offset = after
        return _check_zeros(view, offset)

    def _look_at_first(self, code: bytes) -> None:
        """Some writers name one syntax and write the other; the first element's VR, or its absence, shows it."""
        self._first = False
        if self.layout.implicit and is_vr(code):
            self.layout = EXPLICIT_LITTLE
        elif self.layout is EXPLICIT_LITTLE and not is_vr(code):
            self.layout = IMPLICIT_LITTLE

    def _elements(self, view: memoryview, offset: int, until_passed: bool) -> int:  # noqa: PLR0912  # calls are dear here
        """The hot loop: step over elements of defined length; return where it met anything else."""
        implicit, header, long_length = self.layout
        wanted, last, values, size = self._wanted.tags, self._wanted.last, self.values, len(view)
        began, is_new = offset, self._left == MAX_ELEMENTS and not self._stack
        if is_new and (run := self._wanted.find((self.layout, until_passed), view, offset)) is not None:
            values.update((tag, bytes(view[offset + start : offset + stop])) for tag, start, stop in run.picks)
            offset, self.passed, self.last_group, is_new = offset + run.size_bytes, run.passed, run.last_group, False
            self._left -= run.elements
        collecting = not (self.passed or self._stack)
        count, last_group = 0, self.last_group
        for count in range(self._left):  # noqa: B007  # read after the loop
            try:
                if implicit:
                    group, element, length = header(view, offset)
                    start = offset + 8
                else:
                    group, element, vr, length = header(view, offset)
                    start = offset + 8
                    if vr not in _SHORT and is_vr(vr):
                        start = offset + 12
                        (length,) = long_length(view, offset + 8)
            except struct.error:
                break
            if group == _ITEM_GROUP or length == UNDEFINED or not group:
                break
            if collecting:
                tag = group << 16 | element
                if tag > last:
                    self.passed, collecting = True, False
                    if until_passed:
                        break
                elif tag in wanted and tag not in values:
                    stop = start + min(length, MAX_BYTES)
                    if stop > size:
                        break  # the value is not whole yet
                    values[tag] = bytes(view[start:stop])
            offset, last_group = start + length, group
        else:
            raise NotDicomError("more elements than any image has")
        self._left -= count
        if not self._stack:
            self.last_group = last_group
        if is_new and offset <= size:
            run_here = partial(self._run, view, began, offset)
            self._wanted.note((self.layout, until_passed), count, offset - began, run_here)
        return offset

    def _run(self, view: memoryview, offset: int, end: int) -> Run:
        """Return the run of elements from `offset` to `end`."""
        implicit, header, long_length = self.layout
        places = []
        while offset < end:
            group, element, *vr, length = header(view, offset)
            start = offset + 8
            if not implicit and vr[0] not in _SHORT and is_vr(vr[0]):
                start = offset + 12
                (length,) = long_length(view, offset + 8)
            places.append(Places(offset, start, start + length, group << 16 | element))
            offset = start + length
        return Run.of(places, view, self._wanted)

    def _structure(self, view: memoryview, offset: int) -> int | None:
        """Take one header that opens or closes something; None when it is not whole, or an element like others."""
        layout = self.layout
        try:
            group, element, *rest = layout.header(view, offset)
            (length,) = layout.long_length(view, offset + 4)
            if group == _ITEM_GROUP:
                return self._item(element, length, offset + 8)
            if not group and not self._stack:
                self._in_zeros = True
                return offset
            if self._in_sequence or not group:
                raise NotDicomError("a sequence or the pixel data holds something that is not an item")
            if not layout.implicit:
                if rest[0] in _SHORT or not is_vr(rest[0]):
                    return None
                (length,) = layout.long_length(view, offset + 8)
                offset += 4
        except struct.error:
            return None
        if length != UNDEFINED:
            return None
        if not self._stack:
            self.last_group = group
        self._open(IMPLICIT_LITTLE if rest[0] == b"UN" else layout, in_sequence=True)  # PS3.5 6.2.2 note 2
        return offset + 8

    def _item(self, element: int, length: int, start: int) -> int:
        """Take an item or a delimiter whose value starts at `start`; delimiters that close nothing are passed."""
        self._left -= 1
        if self._left < 0:
            raise NotDicomError("more items than any image has")
        if element == _ITEM and self._in_sequence:
            if length != UNDEFINED:
                return start + length
            self._open(self.layout, in_sequence=False)
        elif element == (_SEQUENCE_END if self._in_sequence else _ITEM_END) and self._stack:
            self.layout, self._in_sequence = self._stack.pop()
        elif element not in (_ITEM_END, _SEQUENCE_END) or (self._stack and not self._in_sequence):
            raise NotDicomError("an item or delimiter stands where none can be")
        return start

    def _open(self, layout: Layout, *, in_sequence: bool) -> None:
        if len(self._stack) >= 2 * MAX_DEPTH:
            raise NotDicomError(f"sequences nested deeper than {MAX_DEPTH}")
        self._stack.append((self.layout, self._in_sequence))
        self.layout, self._in_sequence = layout, in_sequence


def _check_zeros(view: memoryview, offset: int) -> int:
    size = len(view)
    while offset < size:
        piece = bytes(view[offset : offset + len(_ZEROS)])
        if piece != _ZEROS[: len(piece)]:
            raise NotDicomError("something follows the data set that is neither an element nor zeros")
        offset += len(piece)
    return size
