"""The control plane's words: what agents and the gateway say to each other over HTTP, as JSON.

Paths, methods and errors are in docs/protocol.md and in the gateway's OpenAPI document. Object ids are 64
lower-case hex digits; binary values are base64 (msgspec's form of `bytes`). An error answer is `Problem`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from transfer.objects import Identity
from transfer.protocol.messages import NodeId, Right

ObjectIdText = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
# Where the sender had the object: relative path, bytes outside [A-Za-z0-9_.~/-] percent-encoded (RFC 3986), so that
# any file name of any system survives; never used as a path without the checks of `transfer.names`.
Name = Annotated[str, Meta(max_length=12_288)]
OFFER_OBJECTS_MAX = 1024


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request or an answer."""


class Problem(Body, frozen=True):
    """An error answer: a code of `transfer.errors`, what happened, and whether the same request may succeed later."""

    code: str
    message: str
    retryable: bool


class Node(Body, frozen=True):
    """A storage node as agents need it: address, share of the load, key of its receipts (hex), TLS or plain."""

    node_id: NodeId
    host: str
    port: int
    weight: float
    public_key: str
    tls: bool


class Offered(Body, frozen=True):
    """One object that a sender has."""

    object_id: ObjectIdText
    size_bytes: Annotated[int, Meta(ge=0)]
    name: Name = ""


class OpenTransfer(Body, frozen=True, omit_defaults=True):
    """`POST /api/v1/transfers`. None: size not known yet; `nodes` and `replicas` chosen by the gateway.

    `offered` are the first objects of the transfer: they cost no round trip of their own.
    """

    objects: Annotated[int, Meta(ge=0, le=1 << 46)] | None = None
    bytes: Annotated[int, Meta(ge=0, le=1 << 46)] | None = None
    replicas: Annotated[int, Meta(ge=1, le=16)] | None = None
    nodes: Annotated[int, Meta(ge=1, le=1024)] | None = None
    offered: Annotated[list[Offered], Meta(max_length=OFFER_OBJECTS_MAX)] = []


class Go(Body, frozen=True, omit_defaults=True):
    """The answer to `OpenTransfer` and `Renew`: where to send, and the ticket to show there.

    `stored`: what was offered with `OpenTransfer` and is stored already.
    """

    transfer_id: str
    nodes: list[Node]
    replicas: int
    ticket: bytes
    expires_in_s: float
    stored: list[ObjectIdText] = []


class Offer(Body, frozen=True):
    """`POST /api/v1/transfers/{transfer_id}/offer`."""

    objects: Annotated[list[Offered], Meta(max_length=OFFER_OBJECTS_MAX)]


class Wanted(Body, frozen=True):
    """The answer to `Offer`: which to send, which are stored already (in the order offered)."""

    wanted: list[ObjectIdText]
    stored: list[ObjectIdText]


class SignedReceipts(Body, frozen=True):
    """A STORED frame's fields as they came from the node."""

    batch: bytes
    signature: bytes


class Receipts(Body, frozen=True):
    """`POST /api/v1/transfers/{transfer_id}/receipts`: any number of times, in any order, again without harm."""

    receipts: Annotated[list[SignedReceipts], Meta(max_length=1024)]


class Accepted(Body, frozen=True):
    """The answer to `Receipts`: how many objects of this transfer the gateway knows to be durable."""

    objects: int


class Commit(Body, frozen=True):
    """`POST /api/v1/transfers/{transfer_id}/commit`: the sender's own count and Merkle root (`transfer.merkle`).

    `receipts` are those that were not handed on before: the last ones cost no round trip of their own.
    """

    objects: int
    merkle_root: str
    receipts: Annotated[list[SignedReceipts], Meta(max_length=1024)] = []


class Conflict(Body, frozen=True):
    """One SOP Instance UID with different bytes: both are kept, and this says so."""

    sop_instance_uid: str
    object_ids: list[str]


class CommitReceipt(Body, frozen=True):
    """The gateway's signed answer to `Commit`; `signature` is over the canonical JSON of the other fields."""

    transfer_id: str
    objects: int
    bytes: int
    merkle_root: str
    committed_at: str
    conflicts: list[Conflict]
    signature: str


class OpenRead(Body, frozen=True):
    """`POST /api/v1/reads`: asks for a ticket to read or check, at all nodes."""

    rights: list[Right]


class StoredObject(Body, frozen=True):
    """One object of the catalogue and the nodes that hold it."""

    object_id: ObjectIdText
    size_bytes: int
    stored_bytes: int
    encoding: str
    node_ids: list[str]
    names: list[str]
    identity: Identity


class Listing(Body, frozen=True):
    """`GET /api/v1/objects?study=&series=&object=&after=&limit=`: one page; `next` is the next page's `after`."""

    objects: list[StoredObject]
    next: str | None


class NodeStatus(Body, frozen=True):
    """One node as the gateway sees it. `trash_bytes`: of what it put aside, by the last look; neither used nor free."""

    node_id: NodeId
    address: str
    state: Literal["live", "silent", "unknown"]
    free_bytes: int
    used_bytes: int
    objects: int
    flows: int
    heartbeat_age_s: float | None
    trash_bytes: int = 0


class TransferStatus(Body, frozen=True):
    """One transfer that is open, or was committed lately."""

    transfer_id: str
    sender: str
    state: Literal["open", "committed"]
    objects: int
    bytes: int
    durable_objects: int
    opened_at: str


class DrainStatus(Body, frozen=True):
    """A node that is to be taken away; `safe` to switch off, or what is left on it that is not elsewhere.

    Numbers are by the last look, -1 before it. `claimed_objects`: of transfers that are open.
    """

    node_id: NodeId
    left_objects: int
    left_bytes: int
    claimed_objects: int
    safe: bool


class RepairStatus(Body, frozen=True):
    """Damage and repair. The first two count for good; the others say how it stands.

    `damaged_objects`: copies gone and not made good elsewhere yet. `short_objects`: with fewer replicas than wished.
    `waiting_objects`: those of them that nothing can be done for now: no node to read from, or none with room to write
    to. `lost_objects`: without any copy that is known. `orphan_objects`: copies that nodes hold and that no listing
    shows, such as those of transfers that were never committed, by the last stocktake; `orphans_wait`: too many of them
    to be put aside without an operator's word. `moved_total`: copies made so that others could go. `trash_objects`:
    copies that were put aside, by the last look. `twin_nodes`: that run twice, as of a cloned disk. `unlisted_folders`:
    by node, how many it could not list at the last stocktake; copies in them are believed, and not compared.
    """

    damaged_total: int = 0
    repaired_total: int = 0
    moved_total: int = 0
    damaged_objects: int = 0
    short_objects: int = 0
    waiting_objects: int = 0
    lost_objects: int = 0
    orphan_objects: int = 0
    orphan_bytes: int = 0
    gone_nodes: list[str] = []
    draining_nodes: list[str] = []
    trash_objects: int = 0
    trash_bytes: int = 0
    orphans_wait: bool = False
    twin_nodes: list[str] = []
    unlisted_folders: dict[str, int] = {}
    drains: list[DrainStatus] = []


class Status(Body, frozen=True):
    """`GET /api/v1/status`."""

    objects: int
    bytes: int
    stored_bytes: int
    studies: int
    nodes: list[NodeStatus]
    transfers: list[TransferStatus]
    repairs: RepairStatus = msgspec.field(default_factory=RepairStatus)


class Study(Body, frozen=True):
    """One study of the catalogue, with the attributes of the first instance that was stored of it."""

    study_instance_uid: str
    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str
    study_time: str
    study_description: str
    series: int
    instances: int


class Studies(Body, frozen=True):
    """`GET /api/v1/studies?after=&limit=`: one page; `next` is the next page's `after`."""

    studies: list[Study]
    next: str | None


class Event(Body, frozen=True):
    """Something that happened, in the order in which it was committed; `body`'s fields depend on `kind`."""

    sequence: int
    kind: str
    at: str
    body: dict[str, object]


class Events(Body, frozen=True):
    """`GET /api/v1/events?after=&limit=`: one page; `next` is the next page's `after` (the same when none are new)."""

    events: list[Event]
    next: int


class Named(Body, frozen=True):
    """Where an announced object came from."""

    object_id: ObjectIdText
    name: Name


class Announcement(Body, frozen=True):
    """`POST /api/v1/announcements`, by nodes: objects that came in by the paper's own protocol, with their names."""

    receipts: Annotated[list[SignedReceipts], Meta(max_length=64)]
    names: Annotated[list[Named], Meta(max_length=OFFER_OBJECTS_MAX)]
