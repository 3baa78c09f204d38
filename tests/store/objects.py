"""What the tests of the store share: uploads, and a DICOM file made by hand."""

import random

from nodes.objectfile import Record
from nodes.store import Store
from transfer.encodings import get_encoding
from transfer.errors import FascicleError
from transfer.objects import object_id

EXPLICIT = "1.2.840.10008.1.2.1"


def noise(length: int, seed: int = 2) -> bytes:
    return random.Random(seed).randbytes(length)


def pieces(data: bytes, piece_bytes: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[offset : offset + piece_bytes] for offset in range(0, len(data), piece_bytes)]


def upload(store: Store, data: bytes, *, piece_bytes: int = 1 << 20, encoding: str = "raw", name: str = ""):
    incoming = store.begin(name or object_id(data), len(data), encoding)
    for piece in pieces(bytes(get_encoding(encoding).encode(data)), piece_bytes):
        incoming.write(piece)
    return incoming


def put(store: Store, data: bytes, **how) -> Record | FascicleError:
    (outcome,) = store.commit([upload(store, data, **how)])
    return outcome


def fetch(store: Store, name: str) -> bytes:
    with store.read(name) as reader:
        return b"".join(reader)


def element(group: int, number: int, vr: str, value: str) -> bytes:
    data = value.encode("ascii")
    data += b"\0" * (len(data) % 2) if vr == "UI" else b" " * (len(data) % 2)
    tag = group.to_bytes(2, "little") + number.to_bytes(2, "little")
    return tag + vr.encode("ascii") + len(data).to_bytes(2, "little") + data


def dicom(instance: str = "1.2.3.4", pixels: int = 512) -> bytes:
    meta = element(2, 0x10, "UI", EXPLICIT)
    meta = element(2, 2, "UI", "1.2.840.10008.5.1.4.1.1.2") + element(2, 3, "UI", instance) + meta
    length = b"\x02\0\0\0UL\x04\0" + len(meta).to_bytes(4, "little")
    data = element(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.2") + element(8, 0x18, "UI", instance)
    data += element(8, 0x60, "CS", "CT") + element(0x10, 0x20, "LO", "ID 7")
    data += element(0x20, 0xD, "UI", "1.2.3") + element(0x20, 0xE, "UI", "1.2.3.1") + element(0x20, 0x13, "IS", "1")
    data += b"\xe0\x7f\x10\0OW\0\0" + pixels.to_bytes(4, "little") + noise(pixels)
    return bytes(128) + b"DICM" + length + meta + data
