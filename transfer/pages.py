"""Pages: a node's signed word on what it holds, one stretch of ids after the other, and on nothing else in between.

The catalogue is made anew from them, and a copy that is gone is believed to be gone only because a page says so. A page
is the MessagePack bytes of `Page`, signed by the node's Ed25519 key over `CONTEXT` and these bytes. Refuses to do:
reading disks, keeping what pages say.
"""

from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from transfer.errors import ProtocolError, UnauthorisedError
from transfer.protocol.messages import UNREADABLE, Listed, NodeId, ObjectIdBytes
from transfer.receipts import Receipt

CONTEXT: Final = b"fascicle page 1\n"
# With identities of the largest size a page stays below the limit of a control frame (1 MiB).
PAGE_OBJECTS_MAX: Final = 256

Some = Annotated[list[ObjectIdBytes], Meta(max_length=PAGE_OBJECTS_MAX)]


class Page(msgspec.Struct, frozen=True, array_like=True):
    """What a node has of the ids above `after` up to `last` (`complete`: all of them), in their order.

    `receipts` are the sound ones; `damaged` are gone to quarantine; `unreadable` the disk would not give. In an answer
    about the quarantine there are no receipts, `damaged` are the ids of which nothing sound is left, and `unreadable`
    those of which the disk does not tell that.
    """

    node_id: NodeId
    incarnation: str
    nonce: bytes
    after: bytes
    last: bytes
    complete: bool
    receipts: Annotated[list[Receipt], Meta(max_length=PAGE_OBJECTS_MAX)]
    damaged: Some
    unreadable: Some


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Page)


def sign(page: Page, key: Ed25519PrivateKey) -> Listed:
    """Return the frame that carries `page`, signed by the node's key."""
    body = _encoder.encode(page)
    return Listed(body, key.sign(CONTEXT + body))


def verify(listed: Listed, key: Ed25519PublicKey, *, node_id: str, after: bytes, nonce: bytes) -> Page:
    """Return the page if `key` signed it, as the answer of `node_id` to what was asked.

    Raises:
        ProtocolError: not a page, the answer to something else, or ids out of its stretch or order.
        UnauthorisedError: the signature is not this key's.
    """
    try:
        key.verify(listed.signature, CONTEXT + listed.page)
        page = _decoder.decode(listed.page)
    except InvalidSignature as error:
        raise UnauthorisedError(f"a page with a signature that is not {node_id}'s") from error
    except UNREADABLE as error:
        raise ProtocolError(f"a page that cannot be read: {error}") from error
    if (page.node_id, page.after, page.nonce) != (node_id, after, nonce):
        raise ProtocolError(f"{node_id} answers with a page that was not asked for")
    _check_order(page)
    return page


def _check_order(page: Page) -> None:
    """Check that the page stays within its stretch, says nothing twice, and leads on."""
    found = [receipt.object_id for receipt in page.receipts]
    rest = [*page.damaged, *page.unreadable]
    if found != sorted(set(found)) or len({*found, *rest}) != len(found) + len(rest):
        raise ProtocolError(f"{page.node_id} lists ids twice or out of order")
    if any(not page.after < object_id <= page.last for object_id in [*found, *rest]):
        raise ProtocolError(f"{page.node_id} lists ids that are not of its page")
    if not page.complete and page.last <= page.after:
        raise ProtocolError(f"{page.node_id} lists nothing and does not come to an end")
    if any(receipt.node_ids != [page.node_id] for receipt in page.receipts):
        raise ProtocolError(f"{page.node_id} lists what others hold")
