"""Protocol data units of the DICOM upper layer (PS3.8 9.3), decoded and encoded.

Every PDU: type 1 | reserved 1 | length 4 (big endian) | `length` bytes, by type:

    01 A-ASSOCIATE-RQ  protocol version 2 | reserved 2 | called AE 16 | calling AE 16 | reserved 32 | items
    02 A-ASSOCIATE-AC  the same; the AE titles are those of the request
    03 A-ASSOCIATE-RJ  reserved 1 | result 1 | source 1 | reason 1
    04 P-DATA-TF       PDVs: length 4 | context id 1 | control 1 | fragment     control: 1 command, 2 last
    05 A-RELEASE-RQ, 06 A-RELEASE-RP   reserved 4
    07 A-ABORT         reserved 1 | reserved 1 | source 1 | reason 1

    items: type 1 | reserved 1 | length 2 | value       10 application context, 20/21 presentation context (id 1 |
    reserved 1 | result 1 | reserved 1 | 30 abstract and 40 transfer syntax items), 50 user information (51 maximum
    length 4, 52 implementation class UID, 55 implementation version name; others are passed over)

Lengths are checked against `limit_of` when the six bytes of the header are there, before anything is buffered.
Refuses to do: PDUs that only a requestor receives, beyond their header.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import msgspec

from transfer.errors import ProtocolError

HEADER_BYTES: Final = 6
MAX_ASSOCIATE_BYTES: Final = 256 << 10  # 128 contexts that propose every transfer syntax there is: 150 KB
MIN_PDU_BYTES: Final = 4096  # least that may be announced
MAX_PDU_BYTES: Final = 1 << 20  # most that may be announced
TOLERANCE_BYTES: Final = 64  # some senders count a P-DATA-TF's fragment only, not the headers around it
PDV_HEADER_BYTES: Final = 6
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"

_HEADER: Final = struct.Struct(">BxL")
_ITEM: Final = struct.Struct(">BxH")
_ASSOCIATE: Final = struct.Struct(">HH16s16s32x")
_PDV: Final = struct.Struct(">LBB")


class PduType(IntEnum):
    """First byte of a PDU (PS3.8 table 9-11 and on)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA_TF = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


_LIMITS: Final[dict[int, int]] = {
    PduType.ASSOCIATE_RQ: MAX_ASSOCIATE_BYTES,
    PduType.ASSOCIATE_AC: MAX_ASSOCIATE_BYTES,
    PduType.ASSOCIATE_RJ: 4,
    PduType.RELEASE_RQ: 4,
    PduType.RELEASE_RP: 4,
    PduType.ABORT: 4,
}


class Rejection(msgspec.Struct, frozen=True):
    """Why an association is refused (PS3.8 table 9-21)."""

    result: int
    source: int
    reason: int


NO_REASON: Final = Rejection(1, 1, 1)
APPLICATION_CONTEXT_NOT_SUPPORTED: Final = Rejection(1, 1, 2)
CALLING_AE_TITLE_NOT_RECOGNISED: Final = Rejection(1, 1, 3)
CALLED_AE_TITLE_NOT_RECOGNISED: Final = Rejection(1, 1, 7)
PROTOCOL_VERSION_NOT_SUPPORTED: Final = Rejection(1, 2, 2)
LOCAL_LIMIT_EXCEEDED: Final = Rejection(2, 3, 2)


class AbortReason(IntEnum):
    """Why the provider (source 2) aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNISED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProposedContext(msgspec.Struct, frozen=True):
    """A presentation context as proposed: what (abstract syntax), written how (transfer syntaxes)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class AgreedContext(msgspec.Struct, frozen=True):
    """The answer to one: `result` 0 accepted, 3 abstract syntax, 4 transfer syntaxes not supported (table 9-18)."""

    context_id: int
    result: int
    transfer_syntax: str


class AssociateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A-ASSOCIATE-RQ; `max_pdu_bytes` 0 means that the requestor takes P-DATA-TF of any length."""

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    ae_title_bytes: bytes  # both, as they stood, for the answer
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_bytes: int
    implementation_class_uid: str
    implementation_version_name: str


class Pdv(msgspec.Struct, frozen=True):
    """One presentation data value: a fragment of a command or data set."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: memoryview


def limit_of(pdu_type: int, max_pdu_bytes: int) -> int:
    """Return how long a PDU of a type may be at most, where `max_pdu_bytes` was announced; -1: no such type."""
    if pdu_type == PduType.DATA_TF:
        return max_pdu_bytes + TOLERANCE_BYTES
    return _LIMITS.get(pdu_type, -1)


def decode_header(header: bytes | bytearray) -> tuple[int, int]:
    """Return type and length from the first six bytes of a PDU."""
    pdu_type, length = _HEADER.unpack_from(header)
    return pdu_type, length


def decode_associate_request(body: bytes) -> AssociateRequest:
    """Decode what follows the header of an A-ASSOCIATE-RQ.

    Raises:
        ProtocolError: an item that reaches beyond the end, a missing item, or a context id used twice.
    """
    try:
        version, _, called, calling = _ASSOCIATE.unpack_from(body)
    except struct.error as error:
        raise ProtocolError("A-ASSOCIATE-RQ shorter than its fixed part") from error
    items = list(_items(memoryview(body)[_ASSOCIATE.size :]))
    user = {kind: value for item_type, item in items if item_type == 0x50 for kind, value in _items(item)}
    contexts = tuple(_proposed(item) for item_type, item in items if item_type == 0x20)
    if not contexts or len({context.context_id for context in contexts}) != len(contexts):
        raise ProtocolError("A-ASSOCIATE-RQ without presentation contexts, or with an id used twice")
    maximum = bytes(user.get(0x51, b"\0\0\0\0"))
    if len(maximum) != 4:
        raise ProtocolError("maximum length item that is not 4 bytes long")
    return AssociateRequest(
        protocol_version=version,
        called_ae_title=_text(called),
        calling_ae_title=_text(calling),
        ae_title_bytes=called + calling,
        application_context=next((_text(item) for item_type, item in items if item_type == 0x10), ""),
        contexts=contexts,
        max_pdu_bytes=int.from_bytes(maximum, "big"),
        implementation_class_uid=_text(user.get(0x52, b"")),
        implementation_version_name=_text(user.get(0x55, b"")),
    )


def decode_data(body: bytes) -> list[Pdv]:
    """Decode what follows the header of a P-DATA-TF; fragments are views into `body`, not copies.

    Raises:
        ProtocolError: a PDV that reaches beyond the end or is shorter than its own header, or none at all.
    """
    found, offset, view = [], 0, memoryview(body)
    while offset < len(body):
        if offset + PDV_HEADER_BYTES > len(body):
            raise ProtocolError("P-DATA-TF ends inside the header of a PDV")
        length, context_id, control = _PDV.unpack_from(body, offset)
        end = offset + 4 + length
        if length < 2 or end > len(body):
            raise ProtocolError("PDV whose length does not fit its P-DATA-TF")
        fragment = view[offset + PDV_HEADER_BYTES : end]
        found.append(Pdv(context_id, bool(control & 1), bool(control & 2), fragment))
        offset = end
    if not found:
        raise ProtocolError("P-DATA-TF without PDV")
    return found


def encode_associate_accept(
    request: AssociateRequest,
    contexts: tuple[AgreedContext, ...],
    *,
    max_pdu_bytes: int,
    implementation_class_uid: str,
    implementation_version_name: str,
) -> bytes:
    """Encode the A-ASSOCIATE-AC that answers `request`."""
    agreed = b"".join(
        _item(0x21, bytes((context.context_id, 0, context.result, 0)) + _item(0x40, context.transfer_syntax.encode()))
        for context in contexts
    )
    user = (
        _item(0x51, max_pdu_bytes.to_bytes(4, "big"))
        + _item(0x52, implementation_class_uid.encode())
        + _item(0x55, implementation_version_name.encode())
    )
    fixed = struct.pack(">HH32s32x", 1, 0, request.ae_title_bytes)
    body = fixed + _item(0x10, APPLICATION_CONTEXT.encode()) + agreed + _item(0x50, user)
    return _pdu(PduType.ASSOCIATE_AC, body)


def encode_associate_reject(rejection: Rejection) -> bytes:
    """Encode an A-ASSOCIATE-RJ."""
    return _pdu(PduType.ASSOCIATE_RJ, bytes((0, rejection.result, rejection.source, rejection.reason)))


def encode_command(context_id: int, command: bytes, max_pdu_bytes: int) -> bytes:
    """Encode a command set as P-DATA-TF PDUs, none longer than the peer's `max_pdu_bytes` (0: any length)."""
    room = max(max_pdu_bytes - PDV_HEADER_BYTES, 2) if max_pdu_bytes else len(command)
    pieces = [command[start : start + room] for start in range(0, len(command), room)]
    return b"".join(
        _pdu(PduType.DATA_TF, _PDV.pack(len(piece) + 2, context_id, 3 if number == len(pieces) else 1) + piece)
        for number, piece in enumerate(pieces, 1)
    )


def encode_release_response() -> bytes:
    """Encode an A-RELEASE-RP."""
    return _pdu(PduType.RELEASE_RP, bytes(4))


def encode_abort(source: int, reason: int) -> bytes:
    """Encode an A-ABORT; source 0 is the service user, 2 the service provider."""
    return _pdu(PduType.ABORT, bytes((0, 0, source, reason)))


def _pdu(pdu_type: PduType, body: bytes) -> bytes:
    return _HEADER.pack(pdu_type, len(body)) + body


def _item(item_type: int, value: bytes) -> bytes:
    return _ITEM.pack(item_type, len(value)) + value


def _items(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    offset = 0
    while offset < len(view):
        if offset + 4 > len(view):
            raise ProtocolError("association item ends inside its header")
        item_type, length = _ITEM.unpack_from(view, offset)
        offset += 4
        if offset + length > len(view):
            raise ProtocolError("association item reaches beyond what holds it")
        yield item_type, view[offset : offset + length]
        offset += length


def _proposed(item: memoryview) -> ProposedContext:
    if len(item) < 4 or not item[0] % 2:
        raise ProtocolError("presentation context without an odd id")
    inner = list(_items(item[4:]))
    abstract = [_text(value) for kind, value in inner if kind == 0x30]
    transfer = tuple(_text(value) for kind, value in inner if kind == 0x40)
    if len(abstract) != 1 or not transfer:
        raise ProtocolError("presentation context without one abstract syntax and a transfer syntax")
    return ProposedContext(item[0], abstract[0], transfer)


def _text(value: bytes | memoryview) -> str:
    return bytes(value).decode("latin_1").strip(" \0")[:64]
