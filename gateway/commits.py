"""Commits: one transaction makes a transfer's objects visible, writes its events, and keeps the signed answer.

The set that is committed is what the sender knows to be durable: objects that it offered in this transfer and that
were answered as stored, or whose receipts came in with the wished replicas. Its count and Merkle root must be the
sender's. A commit that is repeated gets the same answer bit for bit. Units of work for `gateway.database`. Refuses to
do: deciding that a study is complete; a transfer says what it brought, and the study event counts what is there.
"""

from typing import Any, Final

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Select, func, select, update

from gateway import schema
from gateway.clock import utc_now
from gateway.database import insert_new, insert_new_from
from gateway.events import write_event
from gateway.receiving import chunks, record
from gateway.schema import instance, object_, offered, offered_name, transfer
from gateway.transfers import Transfer, find_owned, forget_claims, offer, open_transfer
from transfer.api import Commit, CommitReceipt, Conflict, Named, Offered, OpenTransfer
from transfer.errors import ConflictError, ProtocolError
from transfer.merkle import merkle_root
from transfer.objects import Identity
from transfer.receipts import ReceiptBatch
from transfer.tls import Peer

EVENT_IDS_MAX: Final = 500  # object ids in one event: 32 KiB of text
CONFLICTS_MAX: Final = 1000  # named in one receipt; the event counts them all
_identity = msgspec.json.Decoder(Identity)
_PATIENT: Final = ("patient_id", "patient_name", "patient_birth_date", "patient_sex")
_STUDY: Final = (
    "study_instance_uid",
    "patient_id",
    "accession_number",
    "study_date",
    "study_time",
    "study_description",
)
_SERIES: Final = ("study_instance_uid", "series_instance_uid", "modality", "series_number", "series_description")


def commit(connection: Connection, transfer_id: str, owner: Peer, claim: Commit, key: Ed25519PrivateKey) -> bytes:
    """Commit the transfer; return the JSON of its `CommitReceipt`.

    Raises:
        ConflictError: the sender's count or root is not what is durable here, or not what was committed before, or
            the transfer was abandoned.
        NotStoredError, UnauthorisedError: see `gateway.transfers.find_owned`.
    """
    mine = find_owned(connection, transfer_id, owner)
    if mine.receipt is not None:
        return _again(mine, claim)
    mine = find_owned(connection, transfer_id, owner, state="open")
    ids = list(connection.execute(_durable(mine)).scalars())
    root = merkle_root(object_id.hex() for object_id in ids)
    if (claim.objects, claim.merkle_root) != (len(ids), root):
        raise ConflictError(
            f"transfer {transfer_id}: the sender commits {claim.objects} objects with root {claim.merkle_root[:64]}, "
            f"here {len(ids)} are durable with root {root}; send the receipts that are missing, then commit again"
        )
    return publish(connection, mine, ids, root, key)


def publish(connection: Connection, mine: Transfer, ids: list[bytes], root: str, key: Ed25519PrivateKey) -> bytes:
    """Make the transfer's durable objects visible, write the events, close the transfer; return its receipt's JSON."""
    at = utc_now()
    studies = _studies(connection, mine)
    new = _reveal(connection, mine)
    conflicts = _conflicts(connection, mine)
    _keep_names(connection, mine)
    size = connection.execute(_with_objects(mine, func.coalesce(func.sum(object_.c.size_bytes), 0))).scalar_one()
    body = {
        "transfer_id": mine.transfer_id,
        "objects": len(ids),
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


def announce(
    connection: Connection, node: Peer, batches: list[ReceiptBatch], names: list[Named], key: Ed25519PrivateKey
) -> bytes:
    """Write what came in at a node without a transfer as a transfer of its own, committed; return its receipt's JSON.

    The transfer's id is made of the receipts, so the same announcement again gets the same answer.

    Raises:
        ProtocolError: a name for an object that is not among the receipts.
    """
    receipts = {receipt.object_id: receipt for batch in batches for receipt in batch.receipts}
    if not {bytes.fromhex(named.object_id) for named in names} <= receipts.keys():
        raise ProtocolError("a name is announced for an object without a receipt")
    transfer_id = "announced-" + blake3(msgspec.msgpack.encode(batches)).hexdigest()[:32]
    if connection.execute(select(transfer.c.receipt).where(transfer.c.transfer_id == transfer_id)).first() is None:
        open_transfer(connection, transfer_id, OpenTransfer(), node, open_max=1)
    mine = find_owned(connection, transfer_id, node)
    if mine.receipt is not None:
        return mine.receipt
    record(connection, batches)
    claims = [
        Offered(object_id=object_id.hex(), size_bytes=receipt.size_bytes) for object_id, receipt in receipts.items()
    ]
    claims += [
        Offered(
            object_id=named.object_id, size_bytes=receipts[bytes.fromhex(named.object_id)].size_bytes, name=named.name
        )
        for named in names
    ]
    offer(connection, transfer_id, node, claims)
    return publish(connection, mine, list(receipts), merkle_root(found.hex() for found in receipts), key)


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


def _studies(connection: Connection, mine: Transfer) -> dict[str, int]:
    """Write the patients, studies and series that the transfer brings; return the number of unseen objects by study."""
    joined = offered.join(object_, object_.c.object_id == offered.c.object_id)
    joined = joined.join(instance, instance.c.object_id == offered.c.object_id)
    # One object stands for its series: numbered within it, the first is taken.
    each: dict[str, Any] = {"partition_by": (instance.c.study_instance_uid, instance.c.series_instance_uid)}
    numbered = (
        select(
            instance.c.study_instance_uid,
            instance.c.object_id,
            func.row_number().over(order_by=instance.c.object_id, **each).label("number"),
            func.count().over(**each).label("objects"),
        )
        .select_from(joined)
        .where(offered.c.transfer_key == mine.transfer_key, offered.c.durable.is_(True))
        .where(object_.c.visible.is_(False), instance.c.study_instance_uid != "")
        .subquery()
    )
    groups = connection.execute(select(numbered).where(numbered.c.number == 1)).all()
    identities = _identities(connection, [row.object_id for row in groups])
    for table, fields in ((schema.patient, _PATIENT), (schema.study, _STUDY), (schema.series, _SERIES)):
        insert_new(connection, table, [{name: getattr(found, name) for name in fields} for found in identities])
    counts: dict[str, int] = {}
    for row in groups:
        counts[row.study_instance_uid] = counts.get(row.study_instance_uid, 0) + row.objects
    return counts


def _identities(connection: Connection, ids: list[bytes]) -> list[Identity]:
    found: list[Identity] = []
    for some in chunks(ids):
        query = select(object_.c.identity).where(object_.c.object_id.in_(some)).order_by(object_.c.object_id)
        found += [_identity.decode(text) for text in connection.execute(query).scalars()]
    return found


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
        write_event(connection, "study stored", at, _study_counts(connection, mine, uid, count))
    for conflict in conflicts:
        body = {"transfer_id": mine.transfer_id} | msgspec.structs.asdict(conflict)
        write_event(connection, "instance conflict", at, body)


def _study_counts(connection: Connection, mine: Transfer, uid: str, new: int) -> dict[str, Any]:
    joined = instance.join(object_, object_.c.object_id == instance.c.object_id)
    row = connection.execute(
        select(func.count().label("instances"), func.count(instance.c.series_instance_uid.distinct()).label("series"))
        .select_from(joined)
        .where(instance.c.study_instance_uid == uid, object_.c.visible.is_(True))
    ).one()
    return {
        "transfer_id": mine.transfer_id,
        "study_instance_uid": uid,
        "new_instances": new,
        "instances": row.instances,
        "series": row.series,
    }


def _close(connection: Connection, mine: Transfer, at: str, root: str, receipt: bytes) -> None:
    """Close the transfer; its claims are spent."""
    connection.execute(
        update(transfer)
        .where(transfer.c.transfer_key == mine.transfer_key)
        .values(state="committed", committed_at=at, merkle_root=root, receipt=receipt)
    )
    forget_claims(connection, mine.transfer_key)
