"""Answers to what a client asks of the store: an object's bytes (GET), which are sound (CHECK), what is here (LIST).

Refuses to do: judging whether the client may ask, order and pace (`nodes.session`).
"""

import contextlib
from collections.abc import AsyncGenerator
from functools import partial

import trio

from nodes.node import Node
from nodes.pages import read_quarantined, read_stretch
from nodes.streaming import blocks_of
from transfer import pages
from transfer.errors import CorruptError, NotStoredError, StorageError
from transfer.log import get_logger
from transfer.pages import PAGE_OBJECTS_MAX, Page
from transfer.protocol.frames import LAST, encode_control, encode_data_header
from transfer.protocol.messages import Check, Checked, Get, List, Listed, Object
from transfer.receipts import Receipt

log = get_logger()


async def answer_get(node: Node, get: Get) -> AsyncGenerator[tuple[bytes | memoryview, ...], None]:
    """Yield what to send, piece by piece: OBJECT, then DATA with the stored bytes.

    Raises:
        NotStoredError, CorruptError, StorageError: as `nodes.store.Store.read`; damage is found before the last piece.
    """
    with await trio.to_thread.run_sync(node.store.read, get.object_id.hex()) as reader:
        record = reader.record
        announced = Object(get.object_id, record.size_bytes, record.stored_bytes, record.encoding)
        yield (encode_control(announced),)
        offset = 0
        async with contextlib.aclosing(blocks_of(reader)) as blocks:
            async for block in blocks:
                flags = LAST if offset + len(block) == record.stored_bytes else 0
                yield encode_data_header(offset, len(block), flags), block
                offset += len(block)
        if not record.stored_bytes:  # such as came by the paper's protocol: no block says that it is the last
            yield (encode_data_header(0, 0, LAST),)
    node.metrics.served(record)


async def answer_check(node: Node, check: Check, transfer_id: str) -> Checked:
    """Return which of the objects are sound, `deep` after re-reading every byte.

    Of what the disk will not read nothing is said: it is not known to be wrong, and the others are answered for.
    """
    sound: list[Receipt] = []
    missing: list[bytes] = []
    corrupt: list[bytes] = []
    for object_id in check.object_ids:
        look = partial(node.store.check_durable, object_id.hex(), deep=check.deep)
        try:
            record = await trio.to_thread.run_sync(look, limiter=node.checks)
        except NotStoredError:
            missing.append(object_id)
        except CorruptError:
            corrupt.append(object_id)
        except StorageError as error:
            log.error("object_unreadable", object_id=object_id.hex(), reason=error.message)
        else:
            sound.append(node.receipt(record))
    return Checked(node.sign(transfer_id, sound), missing, corrupt)


async def answer_list(node: Node, asked: List) -> Listed:
    """Return the next page of what is here, signed.

    Raises:
        StorageError: a folder cannot be read.
    """
    read = read_quarantined if asked.quarantined else read_stretch
    look = partial(read, node.store, asked.after.hex(), PAGE_OBJECTS_MAX)
    found = await trio.to_thread.run_sync(look, limiter=node.checks)
    page = Page(
        node_id=node.node_id,
        incarnation=node.incarnation,
        nonce=asked.nonce,
        after=asked.after,
        last=bytes.fromhex(found.last),
        complete=found.complete,
        receipts=[node.receipt(record) for record in found.sound],
        damaged=list(map(bytes.fromhex, found.damaged)),
        unreadable=list(map(bytes.fromhex, found.unreadable)),
    )
    return pages.sign(page, node.signing_key)
