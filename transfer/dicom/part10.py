"""The beginning of a DICOM file (PS3.10 7.1): preamble and file meta information, read and written.

    0    128 bytes of preamble (any content: kept, never interpreted)
    128  "DICM"
    132  elements of group 0002, always explicit VR little endian; the group's length field is not trusted

Refuses to do: files without "DICM", meta information longer than `MAX_META_BYTES`.
"""

import struct
from typing import Final, NamedTuple

from transfer.dicom.text import clean_text
from transfer.dicom.walk import EXPLICIT_LITTLE, UNDEFINED
from transfer.errors import NotDicomError, TruncatedError

MAX_META_BYTES: Final = 1 << 20
# 2.25 + a UUID made once for this implementation (PS3.5 B.2)
IMPLEMENTATION_CLASS_UID: Final = "2.25.31744712731555877333847313989530568811"
IMPLEMENTATION_VERSION_NAME: Final = "FASCICLE_1"

_LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_CLASS, _INSTANCE, _SYNTAX = 0x0002, 0x0003, 0x0010


class FileMeta(NamedTuple):
    """What the meta information says of the data set, and where in the file the data set starts."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int


def read_file_meta(view: memoryview) -> FileMeta:
    """Read the meta information of a file whose first bytes are `view`.

    Raises:
        NotDicomError: no "DICM" at byte 128, or no meta information behind it.
        TruncatedError: the meta information reaches beyond the end.
    """
    if bytes(view[128:132]) != b"DICM":
        raise NotDicomError("not DICOM: no DICM at byte 128" if len(view) else "not DICOM: empty")
    found: dict[int, str] = {}
    offset, size = 132, len(view)
    while offset < size:
        after, element = _element(view, offset, found)
        if element < 0:
            break
        offset = after
    if offset == 132:
        raise NotDicomError("not DICOM: no file meta information")
    return FileMeta(found.get(_CLASS, ""), found.get(_INSTANCE, ""), found.get(_SYNTAX, ""), offset)


def _element(view: memoryview, offset: int, found: dict[int, str]) -> tuple[int, int]:
    """Take one element into `found`; return where the next starts, and this element's number (-1: other group)."""
    try:
        group, element, vr, length = EXPLICIT_LITTLE.header(view, offset)
        if group != 0x0002:
            return offset, -1
        start = offset + 8
        if vr in _LONG:
            (length,) = EXPLICIT_LITTLE.long_length(view, start)
            start += 4
    except struct.error as error:
        raise TruncatedError("truncated: the end is inside the file meta information") from error
    stop = start + length
    if length == UNDEFINED or stop > MAX_META_BYTES:
        raise NotDicomError(f"not DICOM: file meta information longer than {MAX_META_BYTES} bytes")
    if stop > len(view):
        raise TruncatedError("truncated: the file meta information reaches beyond the end")
    if element in (_CLASS, _INSTANCE, _SYNTAX):
        found.setdefault(element, clean_text(bytes(view[start:stop])))
    return stop, element


def part10_header(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str = ""
) -> bytes:
    """Return preamble and meta information to put before a data set (PS3.10 table 7.1-1).

    Equal arguments give equal bytes, so that the same instance sent twice is the same object. An AE title is cut at
    16 characters, those that are not ASCII replaced; "" leaves it out.

    Raises:
        NotDicomError: a UID that is not 1 to 64 ASCII characters.
    """
    source = source_ae_title.encode("ascii", "replace").decode()[:16]
    body = b"".join(
        (
            struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\x00\x01",
            _text(0x0002, b"UI", sop_class_uid),
            _text(0x0003, b"UI", sop_instance_uid),
            _text(0x0010, b"UI", transfer_syntax_uid),
            _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _text(0x0016, b"AE", source) if source else b"",
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body)) + body


def _text(element: int, vr: bytes, text: str) -> bytes:
    if not (text.isascii() and 1 <= len(text) <= 64):
        raise NotDicomError(f"(0002,{element:04X}) is not 1 to 64 ASCII characters")
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
