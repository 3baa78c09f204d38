"""Commits: one transaction makes a transfer's objects visible, writes its events, and keeps the signed answer.

The set that is committed is what the sender knows to be durable: objects that it offered in this transfer and that
were answered as stored, or whose receipts came in with the wished replicas, on nodes that still take part. Its count
and Merkle root must be the sender's. A commit that is repeated gets the same answer bit for bit. Units of work for
`gateway.database`. Refuses to do: deciding that a study is complete; a transfer says what it brought, and the study
event counts what is there.
"""

from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Select, func, select, update

from gateway import schema
from gateway.clock import utc_now
from gateway.database import insert_new_from
from gateway.events import write_event
from gateway.hierarchy import count_study, write_studies
from gateway.receiving import unmark_uncounted
from gateway.schema import instance, object_, offered, offered_name, transfer
from gateway.transfers import Transfer, find_owned, forget_claims
from gateway.wishes import wish_selected
from transfer.api import Commit, CommitReceipt, Conflict
from transfer.errors import ConflictError
from transfer.merkle import merkle_root
from transfer.tls import Peer

EVENT_IDS_MAX: Final = 500  # object ids in one event: 32 KiB of text
CONFLICTS_MAX: Final = 1000  # named in one receipt; the event counts them all


def commit(
    connection: Connection,
    transfer_id: str,
    owner: Peer,
    claim: Commit,
    key: Ed25519PrivateKey,
    *,
    taking_part: AbstractSet[str] | None = None,
) -> bytes:
    """Commit the transfer; return the JSON of its `CommitReceipt`.

    `taking_part`: the nodes of the cluster now; copies on others count no more. None: nobody left it.

    Raises:
        ConflictError: the sender's count or root is not what is durable here, or not what was committed before, or
            the transfer was abandoned.
        NotStoredError, UnauthorisedError: see `gateway.transfers.find_owned`.
    """
    mine = find_owned(connection, transfer_id, owner)
    if mine.receipt is not None:
        return _again(mine, claim)
    mine = find_owned(connection, transfer_id, owner, state="open")
    if taking_part is not None:
        unmark_uncounted(connection, mine.transfer_key, taking_part)
    ids = durable_ids(connection, mine)
    root = merkle_root(object_id.hex() for object_id in ids)
    if (claim.objects, claim.merkle_root) != (len(ids), root):
        raise ConflictError(
            f"transfer {transfer_id}: the sender commits {claim.objects} objects with root {claim.merkle_root[:64]}, "
            f"here {len(ids)} are durable with root {root}: receipts are missing, or a copy was found damaged since; "
            "send again: what is stored is not sent twice"
        )
    return publish(connection, mine, len(ids), root, key)


def durable_ids(connection: Connection, mine: Transfer) -> list[bytes]:
    """Return the ids of the transfer's set."""
    return list(connection.execute(_durable(mine)).scalars())


def publish(connection: Connection, mine: Transfer, objects: int, root: str, key: Ed25519PrivateKey) -> bytes:
    """Make the transfer's durable objects visible, write the events, close the transfer; return its receipt's JSON.

    `objects` and `root` are those of `durable_ids`.
    """
    at = utc_now()
    studies = write_studies(connection, mine.transfer_key)
    new = _reveal(connection, mine)
    conflicts = _conflicts(connection, mine)
    _keep_names(connection, mine)
    wish_selected(connection, _durable(mine), mine.replicas)
    size = connection.execute(_with_objects(mine, func.coalesce(func.sum(object_.c.size_bytes), 0))).scalar_one()
    body = {
        "transfer_id": mine.transfer_id,
        "objects": objects,
        "bytes": int(size),
        "merkle_root": root,
        "committed_at": at,
        "conflicts": conflicts[:CONFLICTS_MAX],
    }
    signature = key.sign(canonical(body)).hex()
    receipt = msgspec.json.encode(msgspec.convert(body | {"signature": signature}, CommitReceipt))
    _write_events(connection, mine, at, new=new, studies=studies, conflicts=conflicts)
    _close(connection, mine, at, root, receipt)
    return receipt


def canonical(fields: Any) -> bytes:
    """Return the one JSON text that a signature is over: sorted keys, no spaces."""
    return msgspec.json.encode(fields, order="sorted")


def _again(mine: Transfer, claim: Commit) -> bytes:
    receipt = msgspec.json.decode(mine.receipt or b"", type=CommitReceipt)
    if (claim.objects, claim.merkle_root) != (receipt.objects, receipt.merkle_root):
        raise ConflictError(
            f"transfer {mine.transfer_id} was committed with {receipt.objects} objects and root {receipt.merkle_root}; "
            "open a new one for others"
        )
    return mine.receipt or b""


def _durable(mine: Transfer) -> Select[Any]:
    return select(offered.c.object_id).where(offered.c.transfer_key == mine.transfer_key, offered.c.durable.is_(True))


def _with_objects(mine: Transfer, *columns: Any) -> Select[Any]:
    joined = offered.join(object_, object_.c.object_id == offered.c.object_id)
    chosen = select(*columns).select_from(joined)
    return chosen.where(offered.c.transfer_key == mine.transfer_key, offered.c.durable.is_(True))


def _reveal(connection: Connection, mine: Transfer) -> list[bytes]:
    """Flip what is unseen, add it to the totals, and return its ids."""
    unseen = connection.execute(
        _with_objects(mine, object_.c.object_id, object_.c.size_bytes, object_.c.stored_bytes).where(
            object_.c.visible.is_(False)
        )
    ).all()
    connection.execute(
        update(object_)
        .where(object_.c.visible.is_(False), object_.c.object_id.in_(_durable(mine)))
        .values(visible=True)
    )
    totals = schema.totals
    connection.execute(
        update(totals).values(
            objects=totals.c.objects + len(unseen),
            bytes=totals.c.bytes + sum(row.size_bytes for row in unseen),
            stored_bytes=totals.c.stored_bytes + sum(row.stored_bytes for row in unseen),
        )
    )
    return [row.object_id for row in unseen]


def _conflicts(connection: Connection, mine: Transfer) -> list[Conflict]:
    """Return the SOP Instance UIDs of this transfer that are visible with different bytes."""
    brought, other = instance.alias("brought"), instance.alias("other")
    joined = (
        offered.join(brought, brought.c.object_id == offered.c.object_id)
        .join(other, other.c.sop_instance_uid == brought.c.sop_instance_uid)
        .join(object_, object_.c.object_id == other.c.object_id)
    )
    rows = connection.execute(
        select(brought.c.sop_instance_uid, other.c.object_id)
        .select_from(joined)
        .where(offered.c.transfer_key == mine.transfer_key, offered.c.durable.is_(True))
        .where(other.c.object_id != brought.c.object_id, object_.c.visible.is_(True))
        .union(
            select(brought.c.sop_instance_uid, brought.c.object_id)
            .select_from(joined)
            .where(offered.c.transfer_key == mine.transfer_key, offered.c.durable.is_(True))
            .where(other.c.object_id != brought.c.object_id, object_.c.visible.is_(True))
        )
    )
    found: dict[str, set[str]] = {}
    for uid, object_id in rows:
        found.setdefault(uid, set()).add(object_id.hex())
    return [Conflict(sop_instance_uid=uid, object_ids=sorted(ids)) for uid, ids in sorted(found.items())]


def _keep_names(connection: Connection, mine: Transfer) -> None:
    named = offered_name.c
    query = select(named.object_id, named.name_digest, named.name).where(
        named.transfer_key == mine.transfer_key, named.object_id.in_(_durable(mine))
    )
    insert_new_from(connection, schema.object_name, ["object_id", "name_digest", "name"], query)


def _write_events(
    connection: Connection,
    mine: Transfer,
    at: str,
    *,
    new: list[bytes],
    studies: dict[str, int],
    conflicts: list[Conflict],
) -> None:
    for start in range(0, len(new), EVENT_IDS_MAX):
        ids = [object_id.hex() for object_id in new[start : start + EVENT_IDS_MAX]]
        write_event(connection, "objects stored", at, {"transfer_id": mine.transfer_id, "object_ids": ids})
    for uid, count in sorted(studies.items()):
        body = {"transfer_id": mine.transfer_id, "new_instances": count} | count_study(connection, uid)
        write_event(connection, "study stored", at, body)
    for conflict in conflicts:
        body = {"transfer_id": mine.transfer_id} | msgspec.structs.asdict(conflict)
        write_event(connection, "instance conflict", at, body)


def _close(connection: Connection, mine: Transfer, at: str, root: str, receipt: bytes) -> None:
    """Close the transfer; its claims are spent."""
    connection.execute(
        update(transfer)
        .where(transfer.c.transfer_key == mine.transfer_key)
        .values(state="committed", committed_at=at, merkle_root=root, receipt=receipt)
    )
    forget_claims(connection, mine.transfer_key)
