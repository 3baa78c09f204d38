"""DIMSE command sets (PS3.7 6.3, 9.3, annex E), implicit VR little endian, decoded and encoded.

    element: group 2 (0000) | number 2 | length 4 | value        (0000,0000) holds the length of what follows it

C-STORE-RQ, C-ECHO-RQ and their responses are known; every other request is kept with what a refusal needs. Refuses
to do: command sets longer than `MAX_COMMAND_BYTES`, responses and cancels from the peer (they answer nothing here).
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec

from transfer.errors import ProtocolError

MAX_COMMAND_BYTES: Final = 64 << 10
NO_DATA_SET: Final = 0x0101
_RESPONSE: Final = 0x8000
_ELEMENT: Final = struct.Struct("<HHL")

_GROUP_LENGTH, _SOP_CLASS, _FIELD, _MESSAGE_ID, _RESPONDED = 0x0000, 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000


class CommandField(IntEnum):
    """Command field of the requests that are served (PS3.7 table E.1-1)."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF


class Status(IntEnum):
    """Statuses of responses (PS3.7 annex C, PS3.4 table B.2-1)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    UNRECOGNISED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request's command set; UIDs are data as the peer wrote them, at most 64 characters."""

    command_field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


def decode_request(data: bytes) -> Request:
    """Decode a whole command set.

    Raises:
        ProtocolError: elements that do not fit, a group that is not 0000, a missing field, or no request.
    """
    values = _elements(data)
    field, message_id = _number(values, _FIELD), _number(values, _MESSAGE_ID, default=0)
    if field & _RESPONSE:
        raise ProtocolError("a response, where only requests can be")
    return Request(
        command_field=field,
        message_id=message_id,
        has_data_set=_number(values, _DATA_SET_TYPE) != NO_DATA_SET,
        sop_class_uid=_uid(values, _SOP_CLASS),
        sop_instance_uid=_uid(values, _SOP_INSTANCE),
    )


def encode_response(request: Request, status: int, comment: str = "") -> bytes:
    """Encode the response to `request`; `comment` says why, in at most 64 ASCII characters, without patient data."""
    elements = [
        (_SOP_CLASS, request.sop_class_uid.encode("ascii", "replace")),
        (_FIELD, struct.pack("<H", request.command_field | _RESPONSE)),
        (_RESPONDED, struct.pack("<H", request.message_id)),
        (_DATA_SET_TYPE, struct.pack("<H", NO_DATA_SET)),
        (_STATUS, struct.pack("<H", status)),
        (_COMMENT, comment.encode("ascii", "replace")[:64]),
        (_SOP_INSTANCE, request.sop_instance_uid.encode("ascii", "replace")),
    ]
    body = b"".join(_encode(number, value) for number, value in elements if value)
    return _encode(_GROUP_LENGTH, struct.pack("<L", len(body))) + body


def _encode(number: int, value: bytes) -> bytes:
    value += (b" " if number == _COMMENT else b"\0") * (len(value) % 2)
    return _ELEMENT.pack(0, number, len(value)) + value


def _elements(data: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        if offset + _ELEMENT.size > len(data):
            raise ProtocolError("command set ends inside an element's header")
        group, number, length = _ELEMENT.unpack_from(data, offset)
        offset += _ELEMENT.size
        if group or offset + length > len(data):
            raise ProtocolError("command set holds something that is not a whole element of group 0000")
        values[number] = data[offset : offset + length]
        offset += length
    return values


def _number(values: dict[int, bytes], number: int, default: int | None = None) -> int:
    value = values.get(number)
    if value is None and default is not None:
        return default
    if value is None or len(value) != 2:
        raise ProtocolError(f"command set without a good (0000,{number:04X})")
    return int.from_bytes(value, "little")


def _uid(values: dict[int, bytes], number: int) -> str:
    return values.get(number, b"").decode("latin_1").strip(" \0")[:64]
