"""The paper's message (S2): one Erlang external term, the improper list `[Filename | Bytes]`, in a `{packet,4}` frame.

    bytes  field                                  (Erlang "External Term Format", version 131)
    4      length of what follows, big endian
    1      131
    1      108, LIST_EXT
    4      1, the count of elements before the tail
    n      Filename: STRING_EXT 107, LIST_EXT 108 of characters, BINARY_EXT 109, NIL_EXT 106, or an atom
           (ATOM_EXT 100, SMALL_ATOM_EXT 115, ATOM_UTF8_EXT 118, SMALL_ATOM_UTF8_EXT 119)
    1      109, BINARY_EXT: the tail
    4      length of Bytes, big endian, up to the frame's end
    m      Bytes

The answer is a frame of 131 and Filename, octet for octet as it came. Only the head, up to Bytes, is parsed, from as
much of it as has come. Refuses to do: other terms, compressed terms, I/O, taking a name for a path.
"""

import struct
from typing import Final, NamedTuple

from transfer.errors import ProtocolError

VERSION: Final = 131
SMALL_INTEGER, INTEGER, ATOM, NIL, STRING, LIST, BINARY = 97, 98, 100, 106, 107, 108, 109
SMALL_ATOM, ATOM_UTF8, SMALL_ATOM_UTF8 = 115, 118, 119
LENGTH: Final = struct.Struct(">I")
NAME_CHARACTERS_MAX: Final = 1024
HEAD_BYTES_MAX: Final = 16 + 5 * NAME_CHARACTERS_MAX
# tag -> size of the length field, text encoding of the octets that it counts
_COUNTED: Final = {
    STRING: (2, "latin-1"),
    BINARY: (4, "utf-8"),
    ATOM: (2, "latin-1"),
    SMALL_ATOM: (1, "latin-1"),
    ATOM_UTF8: (2, "utf-8"),
    SMALL_ATOM_UTF8: (1, "utf-8"),
}


class Head(NamedTuple):
    """A message up to its bytes: the name as text and as term, where the bytes begin in the frame, their length."""

    name: str
    term: bytes
    offset_bytes: int
    size_bytes: int


class _NeedMoreError(Exception):
    """The head goes on beyond what has come."""


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def take(self, length: int) -> bytes:
        end = self.offset + length
        if end > len(self.data):
            raise _NeedMoreError
        taken = self.data[self.offset : end]
        self.offset = end
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def expect(self, octet: int, what: str) -> None:
        if self.number(1) != octet:
            raise ProtocolError(f"not [Filename | Bytes]: no {what}")


def parse_head(data: bytes, frame_bytes: int) -> Head | None:
    """Parse the beginning of a frame's body of `frame_bytes`; None: more of it is needed.

    Raises:
        ProtocolError: not this message, or a name of more than `NAME_CHARACTERS_MAX`.
    """
    cursor = _Cursor(data[: min(frame_bytes, HEAD_BYTES_MAX)])
    try:
        return _head(cursor, frame_bytes)
    except _NeedMoreError:
        if len(data) >= min(frame_bytes, HEAD_BYTES_MAX):
            raise ProtocolError("not [Filename | Bytes]: it ends before the bytes begin") from None
        return None


def encode_answer(head: Head) -> bytes:
    """Return the frame that answers the term Filename."""
    return LENGTH.pack(1 + len(head.term)) + bytes((VERSION,)) + head.term


def _head(cursor: _Cursor, frame_bytes: int) -> Head:
    cursor.expect(VERSION, "external term of version 131")
    cursor.expect(LIST, "list")
    if cursor.number(4) != 1:
        raise ProtocolError("not [Filename | Bytes]: not one element before the tail")
    start = cursor.offset
    name = _name(cursor)
    term = cursor.data[start : cursor.offset]
    cursor.expect(BINARY, "binary as tail")
    size_bytes = cursor.number(4)
    if cursor.offset + size_bytes != frame_bytes:
        raise ProtocolError("not [Filename | Bytes]: the binary does not end where the frame does")
    return Head(name, term, cursor.offset, size_bytes)


def _name(cursor: _Cursor) -> str:
    tag = cursor.number(1)
    if tag == NIL:
        return ""
    if tag == LIST:
        return _characters(cursor)
    if tag not in _COUNTED:
        raise ProtocolError(f"not [Filename | Bytes]: a name of term type {tag}")
    length_bytes, encoding = _COUNTED[tag]
    length = cursor.number(length_bytes)
    _check_length(length)
    return cursor.take(length).decode(encoding, "backslashreplace")


def _characters(cursor: _Cursor) -> str:
    count = cursor.number(4)
    _check_length(count)
    text = "".join(_character(cursor) for _ in range(count))
    cursor.expect(NIL, "end of the name's characters")
    return text


def _character(cursor: _Cursor) -> str:
    tag = cursor.number(1)
    if tag not in (SMALL_INTEGER, INTEGER):
        raise ProtocolError("not [Filename | Bytes]: a name of other things than characters")
    code = cursor.number(1 if tag == SMALL_INTEGER else 4)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ProtocolError("not [Filename | Bytes]: a name with a number that is no character")
    return chr(code)


def _check_length(length: int) -> None:
    if length > NAME_CHARACTERS_MAX:
        raise ProtocolError(f"not [Filename | Bytes]: a name of {length} characters")
