"""Transfers in the catalogue: open, find, offer.

Units of work for `gateway.database`; each may be repeated without harm. A sender's claims (names, sizes) are kept as
claims of its own transfer, so a false one harms nobody else. Refuses to do: commits (`gateway.commits`), talking to
nodes, deciding who may ask.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec
from blake3 import blake3
from sqlalchemy import Connection, delete, insert, select, update

from gateway.clock import utc_now
from gateway.database import insert_new
from gateway.receiving import mark_durable, record, rows_of, unmark_uncounted
from gateway.schema import object_, offered, offered_name, spare, transfer
from transfer.api import Offered, OpenTransfer
from transfer.errors import ConflictError, NotStoredError, ProtocolError, UnauthorisedError
from transfer.objects import is_object_id
from transfer.receipts import ReceiptBatch
from transfer.tls import Peer

SIZE_BYTES_MAX: Final = 1 << 46  # as on the wire (`transfer.protocol.messages.Size`)
_DIGEST_BYTES: Final = 16


class Transfer(msgspec.Struct, frozen=True):
    """One transfer as the catalogue has it."""

    transfer_key: int
    transfer_id: str
    sender: str
    fingerprint: str
    state: str
    replicas: int
    nodes_wished: int | None
    bytes_expected: int | None
    durable_objects: int
    merkle_root: str | None
    receipt: bytes | None


class Standing(msgspec.Struct, frozen=True):
    """How an offer stands: which are durable, and which a node may have without the gateway knowing."""

    transfer: Transfer
    durable: set[bytes]
    uncertain: list[bytes]


_COLUMNS: Final = [transfer.c[name] for name in Transfer.__struct_fields__]


def open_transfer(
    connection: Connection, transfer_id: str, wish: OpenTransfer, sender: Peer, *, open_max: int
) -> Transfer:
    """Write a new transfer; of more than `open_max` open ones of this sender, the oldest are abandoned.

    Senders that were killed leave transfers open. What is abandoned are claims: receipts stay, and so the objects.
    """
    _abandon_oldest(connection, sender.name, keep=open_max - 1)
    values = {
        "transfer_id": transfer_id,
        "sender": sender.name,
        "fingerprint": sender.fingerprint,
        "state": "open",
        "replicas": wish.replicas or 1,
        "nodes_wished": wish.nodes,
        "bytes_expected": wish.bytes,
        "opened_at": utc_now(),
    }
    connection.execute(insert(transfer), [values])
    return find(connection, transfer_id)


def find(connection: Connection, transfer_id: str) -> Transfer:
    """Return the transfer.

    Raises:
        NotStoredError: there is none of that id.
    """
    row = connection.execute(select(*_COLUMNS).where(transfer.c.transfer_id == transfer_id)).one_or_none()
    if row is None:
        raise NotStoredError(
            f"no transfer {transfer_id[:64]!r} is known here (the catalogue may have been made anew); send again: "
            "what is stored is not sent twice"
        )
    return Transfer(*row)


def is_known(connection: Connection, transfer_id: str) -> bool:
    """Tell whether there is a transfer of that id."""
    return (
        connection.execute(select(transfer.c.transfer_key).where(transfer.c.transfer_id == transfer_id)).first()
        is not None
    )


def find_owned(connection: Connection, transfer_id: str, owner: Peer, *, state: str | None = None) -> Transfer:
    """Return the transfer if `owner` opened it with the certificate that it shows now, and it is in `state`.

    Raises:
        NotStoredError: there is none of that id.
        UnauthorisedError: another party's, or another certificate's.
        ConflictError: it is in another state.
    """
    found = find(connection, transfer_id)
    if found.fingerprint != owner.fingerprint:
        raise UnauthorisedError(f"transfer {transfer_id} was opened with another certificate")
    if state is not None and found.state != state:
        raise ConflictError(f"transfer {transfer_id} is {found.state}; open a new one")
    return found


def offer(
    connection: Connection,
    transfer_id: str,
    owner: Peer,
    objects: list[Offered],
    counted: AbstractSet[str] | None = None,
) -> Standing:
    """Write what is offered; tell how it stands. `counted`: the nodes whose copies are relied on; None: all.

    Raises:
        ConflictError: an id comes with another size than before, or than it is known to have.
        NotStoredError, UnauthorisedError: see `find_owned`.
    """
    mine = find_owned(connection, transfer_id, owner, state="open")
    sizes = _sizes(objects)
    _check_sizes(
        sizes, rows_of(connection, select(object_.c.object_id, object_.c.size_bytes), object_.c.object_id, [*sizes])
    )
    claims = list(
        rows_of(
            connection,
            select(offered.c.object_id, offered.c.size_bytes, offered.c.transfer_key),
            offered.c.object_id,
            [*sizes],
        )
    )
    known = {row.object_id for row in claims if row.transfer_key == mine.transfer_key}
    _check_sizes(sizes, ((row[0], row[1]) for row in claims if row.transfer_key == mine.transfer_key))
    _write_offered(connection, mine, {key: size for key, size in sizes.items() if key not in known})
    insert_new(connection, offered_name, _name_rows(mine.transfer_key, objects))
    if counted is not None:
        unmark_uncounted(connection, mine.transfer_key, counted, [*known])
    mark_durable(connection, mine.transfer_key, mine.replicas, sizes, counted)
    durable = durable_of(connection, mine.transfer_key, sizes)
    seen_before = dict.fromkeys(row.object_id for row in claims)
    return Standing(mine, durable, [key for key in seen_before if key not in durable])


def take_receipts(
    connection: Connection,
    transfer_id: str,
    owner: Peer,
    batches: list[ReceiptBatch],
    counted: AbstractSet[str] | None = None,
    *,
    checked: Iterable[ReceiptBatch] = (),
) -> int:
    """Write verified receipts; return how many objects of the transfer are durable (also after its commit).

    `counted`: as of `offer`. `checked`: what nodes signed now that were asked about these receipts.

    Raises:
        NotStoredError, UnauthorisedError: see `find_owned`.
    """
    mine = find_owned(connection, transfer_id, owner)
    ids = record(connection, batches, asked=False)
    record(connection, checked)
    mark_durable(connection, mine.transfer_key, mine.replicas, ids, counted)
    return find(connection, transfer_id).durable_objects


def take_found(
    connection: Connection,
    mine: Transfer,
    batches: list[ReceiptBatch],
    uncertain: list[bytes],
    counted: AbstractSet[str] | None = None,
) -> set[bytes]:
    """Write verified receipts that nodes gave when they were asked; return what is durable of `uncertain`.

    `counted`: as of `offer`.
    """
    record(connection, batches)
    mark_durable(connection, mine.transfer_key, mine.replicas, uncertain, counted)
    return durable_of(connection, mine.transfer_key, uncertain)


def durable_of(connection: Connection, transfer_key: int, ids: Iterable[bytes]) -> set[bytes]:
    """Return those of `ids` that are durable for the transfer."""
    query = select(offered.c.object_id).where(offered.c.transfer_key == transfer_key, offered.c.durable.is_(True))
    return {row.object_id for row in rows_of(connection, query, offered.c.object_id, list(ids))}


def _abandon_oldest(connection: Connection, sender: str, *, keep: int) -> None:
    owned = select(transfer.c.transfer_key).where(transfer.c.sender == sender, transfer.c.state == "open")
    open_keys = list(connection.execute(owned.order_by(transfer.c.transfer_key.desc())).scalars())
    for key in open_keys[keep:]:
        abandon(connection, key)


def abandon(connection: Connection, transfer_key: int) -> None:
    """Give a transfer up. What it alone had offered can be an orphan from now on, however long a node lists it."""
    mine = select(offered.c.object_id).where(offered.c.transfer_key == transfer_key)
    connection.execute(delete(spare).where(spare.c.reason == "orphan", spare.c.object_id.in_(mine)))
    connection.execute(update(transfer).where(transfer.c.transfer_key == transfer_key).values(state="abandoned"))
    forget_claims(connection, transfer_key)


def forget_claims(connection: Connection, transfer_key: int) -> None:
    """Delete what was offered in a transfer that is over."""
    for table in (offered_name, offered):
        connection.execute(delete(table).where(table.c.transfer_key == transfer_key))


def _sizes(objects: list[Offered]) -> dict[bytes, int]:
    sizes: dict[bytes, int] = {}
    for item in objects:
        if not is_object_id(item.object_id) or item.size_bytes > SIZE_BYTES_MAX:
            raise ProtocolError("an offered object has no valid id or is too large")
        key = bytes.fromhex(item.object_id)
        if sizes.setdefault(key, item.size_bytes) != item.size_bytes:
            raise ConflictError(f"object {item.object_id} is offered with two sizes")
    return sizes


def _check_sizes(sizes: dict[bytes, int], known: Iterable[Any]) -> None:
    for key, size in known:
        if sizes[key] != size:
            raise ConflictError(f"object {key.hex()} is offered with {sizes[key]} bytes and has {size}")


def _write_offered(connection: Connection, mine: Transfer, new: dict[bytes, int]) -> None:
    if not new:
        return
    rows = [{"transfer_key": mine.transfer_key, "object_id": key, "size_bytes": size} for key, size in new.items()]
    insert_new(connection, offered, rows)
    connection.execute(
        update(transfer)
        .where(transfer.c.transfer_key == mine.transfer_key)
        .values(
            offered_objects=transfer.c.offered_objects + len(new),
            offered_bytes=transfer.c.offered_bytes + sum(new.values()),
        )
    )


def _name_rows(transfer_key: int, objects: list[Offered]) -> list[dict[str, Any]]:
    return [
        {"transfer_key": transfer_key, "object_id": bytes.fromhex(item.object_id)} | name_columns(item.name)
        for item in objects
        if item.name
    ]


def name_columns(name: str) -> dict[str, Any]:
    """Return the columns that hold a name."""
    return {"name": name, "name_digest": blake3(name.encode()).digest(_DIGEST_BYTES)}
