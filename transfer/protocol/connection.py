"""The two ends of a flow as state machines: which frame may come when, and how much payload may be in flight.

The tables are the protocol's state diagram (docs/protocol.md). Both ends take bytes through a `FrameReader` and give
frames that fit the state; a frame that does not is a ProtocolError, after which the flow is of no more use.
Refuses to do: I/O, time-outs, judging tickets or digests.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import Final

from transfer.errors import ProtocolError
from transfer.protocol import frames
from transfer.protocol.frames import Data, Frame, FrameReader
from transfer.protocol.messages import (
    FRAME_TYPES,
    VERSION,
    Bye,
    Credit,
    FrameType,
    Get,
    Hello,
    Object,
    Put,
    Refused,
    Resume,
    Welcome,
)


class State(Enum):
    """Where a flow stands, seen from the end that receives."""

    GREETING = auto()
    OPEN = auto()
    BODY = auto()  # between PUT or OBJECT and the last DATA frame
    CLOSED = auto()


Transitions = Mapping[tuple[State, FrameType], State]

# What a node may receive.
SERVER: Final[Transitions] = {
    (State.GREETING, FrameType.HELLO): State.OPEN,
    (State.OPEN, FrameType.PUT): State.BODY,
    (State.BODY, FrameType.DATA): State.BODY,
    (State.BODY, FrameType.PING): State.BODY,
    (State.OPEN, FrameType.GET): State.OPEN,
    (State.OPEN, FrameType.PING): State.OPEN,
    (State.OPEN, FrameType.RESERVE): State.OPEN,
    (State.OPEN, FrameType.CHECK): State.OPEN,
    (State.OPEN, FrameType.LIST): State.OPEN,
    (State.OPEN, FrameType.COPY): State.OPEN,
    (State.OPEN, FrameType.DISCARD): State.OPEN,
    (State.OPEN, FrameType.RESTORE): State.OPEN,
    (State.OPEN, FrameType.PURGE): State.OPEN,
    (State.OPEN, FrameType.TRASH): State.OPEN,
    (State.OPEN, FrameType.BYE): State.CLOSED,
}

# What an agent, the gateway, or a node that makes a replica may receive.
_AT_ANY_TIME = (FrameType.STORED, FrameType.CREDIT, FrameType.PONG, FrameType.RESUME, FrameType.RESERVED)
CLIENT: Final[Transitions] = {
    (State.GREETING, FrameType.WELCOME): State.OPEN,
    (State.GREETING, FrameType.REFUSED): State.CLOSED,
    (State.OPEN, FrameType.OBJECT): State.BODY,
    (State.OPEN, FrameType.REFUSED): State.OPEN,
    (State.OPEN, FrameType.CHECKED): State.OPEN,
    (State.OPEN, FrameType.LISTED): State.OPEN,
    (State.OPEN, FrameType.COPIED): State.OPEN,
    (State.OPEN, FrameType.DONE): State.OPEN,
    (State.OPEN, FrameType.TRASHED): State.OPEN,
    (State.BODY, FrameType.DATA): State.BODY,
    (State.BODY, FrameType.REFUSED): State.OPEN,  # the object turned out corrupt in mid-reading
    **{(state, kind): state for state in (State.OPEN, State.BODY) for kind in _AT_ANY_TIME},
}


class Connection:
    """One end of a flow."""

    def __init__(self, transitions: Transitions, reader: FrameReader) -> None:
        self.state = State.GREETING
        self.reader = reader
        self._transitions = transitions
        self._expected_offset_bytes = 0

    def frames(self) -> Iterator[Frame]:
        """Yield the whole frames that were received, each checked against the state.

        Raises:
            ProtocolError: a frame that may not come now.
        """
        for frame in self.reader.frames():
            self._step(frame)
            yield frame

    def end_of_stream(self) -> None:
        """Note that the peer closed its side.

        Raises:
            ProtocolError: it did so inside a frame or an object.
        """
        if not self.reader.idle or self.state is State.BODY:
            raise ProtocolError("the stream ended in the middle of a frame or an object")
        self.state = State.CLOSED

    def _step(self, frame: Frame) -> None:
        kind = FrameType.DATA if isinstance(frame, Data) else FRAME_TYPES[type(frame)]
        follower = self._transitions.get((self.state, kind))
        if follower is None:
            raise ProtocolError(f"{kind.name} frame while the flow is {self.state.name}")
        self.state = follower
        match frame:
            case Data():
                self._step_data(frame)
            case Hello() | Welcome():
                self._step_greeting(frame)
            case Put() | Object():
                self._expected_offset_bytes = 0

    def _step_greeting(self, frame: Hello | Welcome) -> None:
        if frame.version != VERSION:
            self.state = State.CLOSED
            raise ProtocolError(f"the peer speaks version {frame.version}, this end {VERSION}; update the older one")
        self.reader.control_bytes_max = frames.CONTROL_BYTES_MAX
        self.reader.data_allowed = True

    def _step_data(self, frame: Data) -> None:
        if frame.offset_bytes != self._expected_offset_bytes:
            raise ProtocolError(f"DATA at offset {frame.offset_bytes} where {self._expected_offset_bytes} is next")
        self._expected_offset_bytes += len(frame.payload)
        if frame.flags:
            self.state = State.OPEN


class ServerConnection(Connection):
    """The node's end: checks that the client keeps within the credit that it was given."""

    def __init__(self, allocate: Callable[[int], bytearray | memoryview] = bytearray) -> None:
        """`allocate`: see `FrameReader`."""
        super().__init__(SERVER, FrameReader(allocate))
        self.outstanding_bytes = 0

    def welcome(self, message: Welcome) -> bytes:
        """Return the frame that opens the flow."""
        self.outstanding_bytes = message.credit_bytes
        return frames.encode_control(message)

    def grant(self, credit_bytes: int) -> bytes:
        """Return the frame that lets the client send `credit_bytes` more."""
        self.outstanding_bytes += credit_bytes
        return frames.encode_control(Credit(credit_bytes))

    def resume(self, message: Resume) -> bytes:
        """Return the frame that tells where a resumable object goes on."""
        self._expected_offset_bytes = message.offset_bytes
        return frames.encode_control(message)

    def _step_data(self, frame: Data) -> None:
        super()._step_data(frame)
        self.outstanding_bytes -= len(frame.payload)
        if self.outstanding_bytes < 0:
            raise ProtocolError("the client sent more than its credit")


class ClientConnection(Connection):
    """The end that asks: keeps count of its credit."""

    def __init__(self) -> None:
        super().__init__(CLIENT, FrameReader())
        self.credit_bytes = 0

    def hello(self, ticket: bytes) -> bytes:
        """Return the first frame."""
        return frames.encode_control(Hello(VERSION, ticket))

    def put(self, message: Put) -> bytes:
        """Return the frame that announces an object."""
        return frames.encode_control(message)

    def data_header(self, offset_bytes: int, payload_bytes: int, flags: int = 0) -> bytes:
        """Return the header of a DATA frame and take its payload off the credit.

        Raises:
            ProtocolError: more than the credit; wait for CREDIT first.
        """
        if payload_bytes > self.credit_bytes:
            raise ProtocolError(f"{payload_bytes} bytes to send with a credit of {self.credit_bytes}")
        self.credit_bytes -= payload_bytes
        return frames.encode_data_header(offset_bytes, payload_bytes, flags)

    def get(self, object_id: bytes) -> bytes:
        """Return the frame that asks for an object."""
        return frames.encode_control(Get(object_id))

    def bye(self) -> bytes:
        """Return the frame that says that nothing more comes."""
        return frames.encode_control(Bye())

    def _step(self, frame: Frame) -> None:
        super()._step(frame)
        match frame:
            case Welcome() | Credit():
                self.credit_bytes += frame.credit_bytes
            case Refused(object_id=b""):
                self.state = State.CLOSED
