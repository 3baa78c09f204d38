"""The frames' fields (design section 5): what the two ends of a flow say to each other.

A frame is a 4-byte big-endian length, then the body: one type byte (`FrameType`), then the fields as one MessagePack
array in the order below. `DATA` alone has a fixed binary header and raw payload (see `frames.py`). Object ids are
their 32 raw bytes. Refuses to do: I/O, checking of tickets or digests.
"""

from enum import IntEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

VERSION: Final = 1
# What msgspec raises for bytes of a peer. Python's errors come through: of text that is not UTF-8, and of a thousand
# arrays in one another. It goes down into these even where they stand behind the last field and are skipped.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

ObjectIdBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]
NodeId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9.-]*$")]
EncodingName = Annotated[str, Meta(min_length=1, max_length=32)]
Size = Annotated[int, Meta(ge=0, le=1 << 46)]
Ids = Annotated[list[ObjectIdBytes], Meta(max_length=1024)]

COPY_OBJECTS_MAX: Final = 64
TRASH_OBJECTS_MAX: Final = 256  # receipts of so many fit a control frame
Reason = Literal["orphan", "extra"]  # why an object was put aside: nobody's, or more copies than wished


class FrameType(IntEnum):
    """The type byte."""

    HELLO = 1
    WELCOME = 2
    PUT = 3
    DATA = 4
    STORED = 5
    REFUSED = 6
    CREDIT = 7
    GET = 8
    PING = 9
    PONG = 10
    BYE = 11
    RESUME = 12
    OBJECT = 13
    RESERVE = 14
    RESERVED = 15
    CHECK = 16
    CHECKED = 17
    LIST = 18
    LISTED = 19
    COPY = 20
    COPIED = 21
    DISCARD = 22
    RESTORE = 23
    PURGE = 24
    DONE = 25
    TRASH = 26
    TRASHED = 27


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A control frame's fields."""


class Hello(Message, frozen=True):
    """First frame of the client: protocol version and the ticket that allows what follows."""

    version: int
    ticket: Annotated[bytes, Meta(max_length=32 * 1024)]


class Welcome(Message, frozen=True):
    """First frame of the node: who it is, and how many payload bytes the client may have in flight at first."""

    version: int
    node_id: NodeId
    incarnation: str
    credit_bytes: Size
    free_bytes: Size


class Put(Message, frozen=True):
    """Announces one object; its stored bytes follow in DATA frames, the last of them marked.

    `size_bytes` is the length of the original, `encoding` how it travels and rests. With `resumable` the client
    waits for RESUME before the first DATA. `onward` replicas are still to be made by the receiving node (0: none).
    """

    object_id: ObjectIdBytes
    size_bytes: Size
    encoding: EncodingName
    resumable: bool
    onward: Annotated[int, Meta(ge=0, le=16)]


class Resume(Message, frozen=True):
    """The answer to a resumable PUT: send the stored bytes from this offset on."""

    object_id: ObjectIdBytes
    offset_bytes: Size


class Stored(Message, frozen=True):
    """Receipts for a batch of objects that are durable on all their replicas (`transfer.receipts`)."""

    batch: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class Refused(Message, frozen=True):
    """A refusal. `object_id` is empty when the whole flow is refused (the node closes it then).

    `code` is one of `transfer.errors`; `text` says what to do.
    """

    object_id: Annotated[bytes, Meta(max_length=32)]
    code: Annotated[str, Meta(max_length=32)]
    text: Annotated[str, Meta(max_length=1024)]


class Credit(Message, frozen=True):
    """More payload bytes that the client may send."""

    credit_bytes: Size


class Get(Message, frozen=True):
    """Asks for one object; answered by OBJECT and DATA frames in the order asked, or REFUSED."""

    object_id: ObjectIdBytes


class Object(Message, frozen=True):
    """Announces an object that was asked for; its stored bytes follow in DATA frames, the last marked."""

    object_id: ObjectIdBytes
    size_bytes: Size
    stored_bytes: Size
    encoding: EncodingName


class Reserve(Message, frozen=True):
    """The gateway asks for room before it sends an agent here (S2, messages 3 and 4)."""

    transfer_id: Annotated[str, Meta(max_length=64)]
    size_bytes: Size


class Reserved(Message, frozen=True):
    """The node has the room, and says its free space, load (active flows) and number of objects."""

    transfer_id: Annotated[str, Meta(max_length=64)]
    free_bytes: Size
    flows: int
    objects: int


class Check(Message, frozen=True):
    """Asks which of these objects are stored here; `deep` re-reads and verifies every byte of each."""

    object_ids: Ids
    deep: bool


class Checked(Message, frozen=True):
    """The answer to CHECK: receipts for what is sound, and the ids of what is missing or was found corrupt."""

    sound: Stored
    missing: Ids
    corrupt: Ids


class List(Message, frozen=True):
    """The gateway asks which objects are here: the next page above `after` in the order of ids (empty: from the first).

    With `quarantined` it asks for the ids of which only a damaged file is left here. `nonce` comes back signed, so that
    no older answer passes for this one.
    """

    after: Annotated[bytes, Meta(max_length=32)]
    quarantined: bool
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]


class Listed(Message, frozen=True):
    """The answer to LIST: one page (`transfer.pages`), signed by the node."""

    page: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class Copy(Message, frozen=True):
    """The gateway has this node copy objects that it holds to the other nodes of `ticket`, which allows that."""

    object_ids: Annotated[list[ObjectIdBytes], Meta(max_length=COPY_OBJECTS_MAX)]
    ticket: Annotated[bytes, Meta(max_length=32 * 1024)]


class Copied(Message, frozen=True):
    """The answer to COPY: receipts of what all these nodes hold now, and why the others could not be copied."""

    stored: Stored
    failed: Annotated[list[Refused], Meta(max_length=COPY_OBJECTS_MAX)]


SomeIds = Annotated[list[ObjectIdBytes], Meta(max_length=TRASH_OBJECTS_MAX)]


class Discard(Message, frozen=True):
    """The gateway has this node put objects that it holds aside, for `keep_s` seconds of its running time at least.

    Answered by DONE, as PURGE is.
    """

    object_ids: SomeIds
    reason: Reason
    keep_s: Annotated[int, Meta(ge=0, le=366 * 86_400)]


class Restore(Message, frozen=True):
    """The gateway has this node put back what was put aside; answered by CHECKED, of what is in its place now."""

    object_ids: SomeIds


class Purge(Message, frozen=True):
    """The gateway confirms that what was put aside may go for good, where its time has passed; or `at_once`."""

    object_ids: SomeIds
    at_once: bool


class Done(Message, frozen=True):
    """The answer to DISCARD and PURGE: of which objects it is done, and why not of the others."""

    object_ids: SomeIds
    failed: Annotated[list[Refused], Meta(max_length=TRASH_OBJECTS_MAX)]


class Trash(Message, frozen=True):
    """The gateway asks what was put aside here: the next objects above `after` in the order of ids."""

    after: Annotated[bytes, Meta(max_length=32)]


class Discarded(Message, frozen=True):
    """One object that was put aside, and when it may go: in `due_s` seconds of the node's running time."""

    object_id: ObjectIdBytes
    reason: Reason
    stored_bytes: Size
    due_s: Annotated[int, Meta(ge=0, le=1 << 40)]


class Trashed(Message, frozen=True):
    """The answer to TRASH; `complete` when there is nothing behind it."""

    entries: Annotated[list[Discarded], Meta(max_length=TRASH_OBJECTS_MAX)]
    complete: bool


class Ping(Message, frozen=True):
    """Are you there. With token 0: nothing more is to be waited for."""

    token: int


class Pong(Message, frozen=True):
    """Yes."""

    token: int


class Bye(Message, frozen=True):
    """The client has nothing more to say; the node answers what is open and closes."""


Control = (
    Hello | Welcome | Put | Stored | Refused | Credit | Get | Ping | Pong | Bye | Resume | Object
    | Reserve | Reserved | Check | Checked | List | Listed
    | Copy | Copied
    | Discard | Restore | Purge | Done | Trash | Trashed
)  # fmt: skip
TYPES: Final[dict[FrameType, type[Message]]] = {
    FrameType.HELLO: Hello,
    FrameType.WELCOME: Welcome,
    FrameType.PUT: Put,
    FrameType.STORED: Stored,
    FrameType.REFUSED: Refused,
    FrameType.CREDIT: Credit,
    FrameType.GET: Get,
    FrameType.PING: Ping,
    FrameType.PONG: Pong,
    FrameType.BYE: Bye,
    FrameType.RESUME: Resume,
    FrameType.OBJECT: Object,
    FrameType.RESERVE: Reserve,
    FrameType.RESERVED: Reserved,
    FrameType.CHECK: Check,
    FrameType.CHECKED: Checked,
    FrameType.LIST: List,
    FrameType.LISTED: Listed,
    FrameType.COPY: Copy,
    FrameType.COPIED: Copied,
    FrameType.DISCARD: Discard,
    FrameType.RESTORE: Restore,
    FrameType.PURGE: Purge,
    FrameType.DONE: Done,
    FrameType.TRASH: Trash,
    FrameType.TRASHED: Trashed,
}
FRAME_TYPES: Final[dict[type[Message], FrameType]] = {kind: number for number, kind in TYPES.items()}

Right = Literal["put", "get", "check", "reserve", "repair"]  # `repair`: the gateway's own, to list, copy, put aside
