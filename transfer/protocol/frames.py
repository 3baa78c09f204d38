"""Frames: how messages are laid into a byte stream, and taken out of it without a copy of large payloads.

    offset  bytes  field
    0       4      length of the body, big endian
    4       1      type (`FrameType`)
    5       n      control frames: one MessagePack array (`messages`)

    DATA frames have a fixed header in place of MessagePack:
    5       1      flags: 1 = last of the object, 2 = abandoned by the sender (nothing of it is kept)
    6       2      zero
    8       8      offset of the payload in the object's stored bytes, big endian
    16      n      payload, at most 1 MiB

A length is judged as soon as its four bytes are there, before room is made for what it announces. Refuses to do:
reading from anything, deciding whether a frame fits the conversation (`connection`).
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from transfer.errors import ProtocolError
from transfer.protocol.messages import FRAME_TYPES, TYPES, UNREADABLE, Control, FrameType

LENGTH: Final = struct.Struct(">I")
DATA: Final = struct.Struct(">IBBHQ")
DATA_FIELDS_BYTES: Final = DATA.size - LENGTH.size
PAYLOAD_BYTES_MAX: Final = 1 << 20
CONTROL_BYTES_MAX: Final = 1 << 20
GREETING_BYTES_MAX: Final = 64 << 10
READ_BYTES: Final = 64 << 10  # many small frames a read; the copied head of a large one stays small

LAST: Final = 1
ABANDONED: Final = 2

_encoder = msgspec.msgpack.Encoder()
_decoders: Final = {kind: msgspec.msgpack.Decoder(message) for kind, message in TYPES.items()}
_KNOWN: Final = {int(kind) for kind in FrameType}


class Data(msgspec.Struct, frozen=True):
    """A DATA frame. `payload` is the receiver's own: no later frame overwrites it."""

    offset_bytes: int
    flags: int
    payload: bytes | bytearray | memoryview


Frame = Control | Data


def encode_control(message: Control) -> bytes:
    """Return the whole frame of a control message."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body) + 1) + bytes((FRAME_TYPES[type(message)],)) + body


def encode_data_header(offset_bytes: int, payload_bytes: int, flags: int = 0) -> bytes:
    """Return the 16 bytes that stand before a payload of `payload_bytes`."""
    return DATA.pack(DATA_FIELDS_BYTES + payload_bytes, FrameType.DATA, flags, 0, offset_bytes)


class FrameReader:
    """Takes bytes as they come and gives whole frames.

    The owner of the stream reads into `buffer()`, says how much came with `received(n)`, and iterates `frames()`.
    Payloads of large DATA frames are read straight into memory of their own.
    """

    def __init__(self, allocate: Callable[[int], bytearray | memoryview] = bytearray) -> None:
        """`allocate` gives the memory of large payloads, each at most 1 MiB."""
        self._allocate = allocate
        self.control_bytes_max = GREETING_BYTES_MAX
        self.data_allowed = False
        self._buffer = bytearray(READ_BYTES)
        self._start = 0
        self._end = 0
        self._large: _Large | None = None

    def buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        if self._large is not None:
            return memoryview(self._large.body)[self._large.filled :]
        if self._start:
            remaining = self._end - self._start
            self._buffer[:remaining] = self._buffer[self._start : self._end]
            self._start, self._end = 0, remaining
        return memoryview(self._buffer)[self._end :]

    @property
    def wanted_bytes(self) -> int:
        """How many bytes are sure to come before a frame is whole; 1 when that is not known."""
        return 1 if self._large is None else len(self._large.body) - self._large.filled

    def received(self, count: int) -> None:
        """Note that `count` bytes were put into `buffer()`."""
        if self._large is not None:
            self._large.filled += count
        else:
            self._end += count

    @property
    def idle(self) -> bool:
        """Whether the stream stands between two frames, where it may end."""
        return self._large is None and self._start == self._end

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are whole.

        Raises:
            ProtocolError: a length over the limit, an unknown type, or fields that do not fit it.
        """
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        if self._large is not None:
            return self._finish_large()
        available = self._end - self._start
        if available < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._buffer, self._start)
        self._judge_length(length)
        if available <= LENGTH.size:
            return None
        kind = self._judge_kind(self._buffer[self._start + LENGTH.size], length)
        if kind == FrameType.DATA:
            return self._next_data(length, available)
        return self._next_control(kind, length, available)

    def _judge_length(self, length: int) -> None:
        limit = self.control_bytes_max
        if self.data_allowed:
            limit = max(limit, DATA_FIELDS_BYTES + PAYLOAD_BYTES_MAX)
        if not 1 <= length <= limit:
            raise ProtocolError(f"frame of {length} bytes where 1 to {limit} are allowed; is the peer a Fascicle?")

    def _judge_kind(self, number: int, length: int) -> FrameType:
        if number not in _KNOWN:
            raise ProtocolError(f"unknown frame type {number}")
        kind = FrameType(number)
        if kind == FrameType.DATA:
            if not self.data_allowed or length < DATA_FIELDS_BYTES:
                raise ProtocolError("DATA frame where none is allowed, or too short for its header")
        elif length > self.control_bytes_max:
            raise ProtocolError(f"{kind.name} frame of {length} bytes where {self.control_bytes_max} are allowed")
        return kind

    def _next_data(self, length: int, available: int) -> Data | None:
        if available < DATA.size:
            return None
        _, _, flags, zero, offset = DATA.unpack_from(self._buffer, self._start)
        if zero or flags & ~(LAST | ABANDONED):
            raise ProtocolError("DATA frame with flags that this version does not know")
        payload_bytes = length - DATA_FIELDS_BYTES
        self._start += DATA.size
        if available - DATA.size >= payload_bytes:
            return Data(offset, flags, self._take(payload_bytes))
        self._large = self._begin_large(FrameType.DATA, self._allocate(payload_bytes), offset, flags)
        return None

    def _next_control(self, kind: FrameType, length: int, available: int) -> Control | None:
        if available >= LENGTH.size + length:
            self._start += LENGTH.size + 1
            return _decode(kind, self._take(length - 1))
        if LENGTH.size + length > READ_BYTES:
            self._start += LENGTH.size + 1
            self._large = self._begin_large(kind, bytearray(length - 1))
        return None

    def _take(self, count: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[self._start : self._start + count])
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0
        return taken

    def _begin_large(self, kind: FrameType, body: bytearray | memoryview, offset: int = 0, flags: int = 0) -> "_Large":
        large = _Large(kind, body, offset, flags)
        large.filled = self._end - self._start
        large.body[: large.filled] = memoryview(self._buffer)[self._start : self._end]
        self._start = self._end = 0
        return large

    def _finish_large(self) -> Frame | None:
        large = self._large
        if large is None or large.filled < len(large.body):
            return None
        self._large = None
        if large.kind == FrameType.DATA:
            return Data(large.offset_bytes, large.flags, large.body)
        return _decode(large.kind, large.body)


class _Large:
    """A frame too large for the common buffer, on its way into memory of its own."""

    __slots__ = ("body", "filled", "flags", "kind", "offset_bytes")

    def __init__(self, kind: FrameType, body: bytearray | memoryview, offset_bytes: int, flags: int) -> None:
        self.kind = kind
        self.body = body
        self.offset_bytes = offset_bytes
        self.flags = flags
        self.filled = 0


def _decode(kind: FrameType, body: bytes | bytearray | memoryview) -> Control:
    try:
        message: Control = _decoders[kind].decode(body)  # type: ignore[assignment]  # the table pairs them
    except UNREADABLE as error:
        raise ProtocolError(f"{kind.name} frame with fields that do not fit: {error}") from error
    return message
