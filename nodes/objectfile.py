"""The file of one stored object: a fixed header that describes it, then its stored bytes.

| offset | bytes | field |
|---|---|---|
| 0    | 8    | magic `fascicle` |
| 8    | 2    | format version, 1 (all numbers big-endian) |
| 10   | 2    | header length, 2048 |
| 12   | 4    | flags: bit 0 partial (an upload that is not complete; stored length and digest are 0) |
| 16   | 2    | cipher algorithm, 0: none (reserved) |
| 18   | 6    | zero |
| 24   | 16   | cipher key id, zero (reserved) |
| 40   | 32   | object id: BLAKE3-256 of the original bytes |
| 72   | 8    | length of the original |
| 80   | 8    | length of the stored bytes |
| 88   | 32   | BLAKE3-256 of the stored bytes (raw: the object id) |
| 120  | 32   | name of the encoding, ASCII, padded with zero |
| 152  | 2    | length of the identity |
| 154  | 6    | zero |
| 160  | 1856 | `Identity` in MessagePack, padded with zero |
| 2016 | 32   | BLAKE3-256 of the 2016 bytes before |
| 2048 | ...  | stored bytes, to the end of the file |

Pure. Refuses to do: I/O, encodings, judging the stored bytes.
"""

import struct
from typing import Final

import msgspec
from blake3 import blake3
from typing_extensions import Buffer

from transfer.errors import CorruptError, StorageError
from transfer.objects import Identity
from transfer.protocol.messages import UNREADABLE

MAGIC: Final = b"fascicle"
VERSION: Final = 1
HEADER_BYTES: Final = 2048
PARTIAL: Final = 1
RAW: Final = "raw"
FIXED: Final = struct.Struct(">8sHHIH6x16s32sQQ32s32sH6x")
CHECK_BYTES: Final = 32
CHECKED_BYTES: Final = HEADER_BYTES - CHECK_BYTES
IDENTITY_BYTES: Final = CHECKED_BYTES - FIXED.size
CUTS_BYTES: Final = (256, 192, 128, 96, 80)  # the last always fits, and cuts no UID (64 ASCII characters)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Identity)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt says of one stored object; `object_id` in hex."""

    object_id: str
    size_bytes: int
    stored_bytes: int
    encoding: str
    identity: Identity


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A file's header: the record, the digest of the stored bytes, and whether more of these are to come."""

    record: Record
    stored_digest: bytes
    partial: bool = False


def encode_header(header: Header) -> bytes:
    """Return the 2048 bytes; an identity that does not fit has its long values cut."""
    record = header.record
    identity = _encode_identity(record.identity)
    fixed = FIXED.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        PARTIAL if header.partial else 0,
        0,
        bytes(16),
        bytes.fromhex(record.object_id),
        record.size_bytes,
        record.stored_bytes,
        header.stored_digest,
        record.encoding.encode("ascii"),
        len(identity),
    )
    checked = (fixed + identity).ljust(CHECKED_BYTES, b"\0")
    return checked + blake3(checked).digest()


def decode_header(data: Buffer) -> Header:
    """Return what the first 2048 bytes of a file say.

    Raises:
        CorruptError: too short, not an object's file, or any bit changed.
        StorageError: sound, but of a newer release.
    """
    raw = bytes(memoryview(data)[:HEADER_BYTES])
    if len(raw) < HEADER_BYTES or blake3(raw[:CHECKED_BYTES]).digest() != raw[CHECKED_BYTES:]:
        raise CorruptError("the header of a stored object is damaged")
    magic, version, length, flags, cipher, _, object_id, size, stored, digest, name, identity = FIXED.unpack_from(raw)
    if magic != MAGIC:
        raise CorruptError("not the file of a stored object")
    if version != VERSION or length != HEADER_BYTES or cipher or flags & ~PARTIAL:
        raise StorageError("an object was stored by a newer release; run that release here")
    record = Record(
        object_id=object_id.hex(),
        size_bytes=size,
        stored_bytes=stored,
        encoding=name.rstrip(b"\0").decode("ascii", "replace"),
        identity=_decode_identity(raw[FIXED.size : FIXED.size + identity]),
    )
    return Header(record=record, stored_digest=digest, partial=bool(flags & PARTIAL))


def fit_identity(identity: Identity) -> Identity:
    """Return the identity as a header holds it: whole, or with its long values cut.

    Receipts say this and nothing longer, so that a catalogue made anew from headers says what the first one did.
    """
    texts = [value for value in msgspec.structs.astuple(identity) if isinstance(value, str)]
    if max(map(len, texts)) <= CUTS_BYTES[-1] and "".join(texts).isascii():
        return identity  # almost all are: the last cut would change nothing
    for limit_bytes in CUTS_BYTES:
        cut = msgspec.structs.replace(identity, **_cut_values(identity, limit_bytes))
        if len(_encoder.encode(cut)) <= IDENTITY_BYTES:
            break
    return cut


def _encode_identity(identity: Identity) -> bytes:
    return _encoder.encode(fit_identity(identity))


def _cut_values(identity: Identity, limit_bytes: int) -> dict[str, str]:
    values = ((name, getattr(identity, name)) for name in identity.__struct_fields__)
    return {name: _cut(value, limit_bytes) for name, value in values if isinstance(value, str)}


def _cut(value: str, limit_bytes: int) -> str:
    return value.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def _decode_identity(data: bytes) -> Identity:
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise CorruptError("the identity in a stored object's header cannot be read") from error
