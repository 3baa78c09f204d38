"""Data sets written byte by byte, so that tests say what they mean, also what no library would write."""

import struct

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OF", b"OD", b"OL", b"OV", b"SV", b"UV"}
UNDEFINED = 0xFFFFFFFF


def element(tag, vr, value=b"", *, length=None, order="<"):
    vr = vr.encode()
    length = len(value) if length is None else length
    head = struct.pack(f"{order}HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + struct.pack(f"{order}HL" if vr in LONG else f"{order}H", *([0] if vr in LONG else []), length) + value


def implicit(tag, value=b"", *, length=None):
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(value=b"", *, length=None):
    return implicit(0xFFFEE000, value, length=length)


ITEM_END = implicit(0xFFFEE00D)
SEQUENCE_END = implicit(0xFFFEE0DD)


def even(text):
    value = text.encode() if isinstance(text, str) else text
    return value + b" " * (len(value) % 2)


def uid(text):
    value = text.encode()
    return value + b"\0" * (len(value) % 2)


def file(data_set, syntax=EXPLICIT, *, sop_class=CT, instance="1.2.3", preamble=bytes(128)):
    body = (
        element(0x00020001, "OB", b"\0\1")
        + element(0x00020002, "UI", uid(sop_class))
        + element(0x00020003, "UI", uid(instance))
        + element(0x00020010, "UI", uid(syntax))
    )
    return preamble + b"DICM" + element(0x00020000, "UL", struct.pack("<L", len(body))) + body + data_set


FIELDS = [
    (0x00080005, "CS", even("ISO_IR 100")),
    (0x00080016, "UI", uid(CT)),
    (0x00080018, "UI", uid("1.2.3")),
    (0x00080020, "DA", b"20240102"),
    (0x00080060, "CS", b"CT"),
    (0x00100010, "PN", even("Müller^Jörg".encode("latin_1"))),
    (0x00100020, "LO", even("P1")),
    (0x0020000D, "UI", uid("1.2.3.1")),
    (0x0020000E, "UI", uid("1.2.3.1.1")),
    (0x00200013, "IS", b"7 "),
]
PIXELS = bytes(range(64))
IMAGE = [*FIELDS, (0x00280010, "US", b"\x08\0"), (0x7FE00010, "OW", PIXELS)]


def explicit_image(order="<"):
    return b"".join(element(*each, order=order) for each in IMAGE)


def implicit_image():
    return b"".join(implicit(tag, value) for tag, _, value in IMAGE)
