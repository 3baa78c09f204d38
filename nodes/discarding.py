"""Answers to the gateway's DISCARD, RESTORE, PURGE and TRASH (`nodes.trash`), worked off in threads, a few at a time.

Refuses to do: judging whether the gateway may ask (`nodes.session`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import trio

from nodes.node import Node
from nodes.objectfile import Record
from transfer.errors import CorruptError, FascicleError
from transfer.protocol.messages import (
    TRASH_OBJECTS_MAX,
    Checked,
    Discard,
    Discarded,
    Done,
    Purge,
    Refused,
    Restore,
    Trash,
    Trashed,
)

TEXT_MAX: Final = 200  # of each refusal


async def answer_discard(node: Node, asked: Discard) -> Done:
    """Put objects aside; say which."""
    work = partial(node.trash.discard, _hex(asked.object_ids), asked.reason, asked.keep_s)
    return _done(asked.object_ids, await trio.to_thread.run_sync(work, limiter=node.checks))


async def answer_restore(node: Node, asked: Restore, transfer_id: str) -> Checked:
    """Put objects back; answer receipts of what is in its place now, every byte of it read."""
    work = partial(node.trash.restore, _hex(asked.object_ids))
    outcomes = await trio.to_thread.run_sync(work, limiter=node.checks)
    sound = [node.receipt(found) for found in outcomes.values() if isinstance(found, Record)]
    corrupt = [bytes.fromhex(key) for key, found in outcomes.items() if isinstance(found, CorruptError)]
    known = {receipt.object_id for receipt in sound}.union(corrupt)
    missing = [object_id for object_id in dict.fromkeys(asked.object_ids) if object_id not in known]
    return Checked(node.sign(transfer_id, sound), missing, corrupt)


async def answer_purge(node: Node, asked: Purge) -> Done:
    """Delete what was put aside and may go; say of which objects nothing is left in the trash."""
    work = partial(node.trash.purge, _hex(asked.object_ids), at_once=asked.at_once)
    return _done(asked.object_ids, await trio.to_thread.run_sync(work, limiter=node.checks))


async def answer_trash(node: Node, asked: Trash) -> Trashed:
    """Return the next page of what was put aside.

    Raises:
        StorageError: the folder cannot be read.
    """

    def look() -> Trashed:
        now_s = node.trash.uptime.now_s()
        entries, complete = node.trash.entries(asked.after.hex(), TRASH_OBJECTS_MAX)
        found = [
            Discarded(
                bytes.fromhex(entry.object_id),
                entry.reason,
                node.trash.stored_bytes(entry),
                max(0, entry.due_s - now_s),
            )
            for entry in entries
        ]
        return Trashed(found, complete)

    return await trio.to_thread.run_sync(look, limiter=node.checks)


def _hex(object_ids: Sequence[bytes]) -> list[str]:
    return [object_id.hex() for object_id in dict.fromkeys(object_ids)]


def _done(asked: Sequence[bytes], failed: Mapping[str, FascicleError]) -> Done:
    done = [object_id for object_id in dict.fromkeys(asked) if object_id.hex() not in failed]
    refused = [Refused(bytes.fromhex(key), error.code, error.message[:TEXT_MAX]) for key, error in failed.items()]
    return Done(done, refused)
