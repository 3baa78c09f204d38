"""What the catalogue shows: objects, studies, totals and transfers, in pages of bounded size.

Only committed objects are shown, each with every node that is known to hold it: a node that is silent still holds what
it held. Units of work for `Database.read`. Refuses to do: writing, searching by anything but identifiers.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Select, func, select

from gateway.disks import is_there
from gateway.hierarchy import PATIENT, STUDY
from gateway.receiving import rows_of
from gateway.schema import instance, object_, object_name, patient, replica, series, study, totals, transfer
from transfer.api import Listing, StoredObject, Studies, Study, TransferStatus
from transfer.errors import ProtocolError
from transfer.objects import Identity, is_object_id

OBJECTS_MAX: Final = 1000  # in a page
STUDIES_MAX: Final = 500
TRANSFERS_MAX: Final = 100
NAMES_MAX: Final = 256  # of one object in a page
PAGE_NAMES_BYTES: Final = 16 << 20  # of all names in a page; a page ends early when they are long
_identity = msgspec.json.Decoder(Identity)
_STUDY_COLUMNS: Final = [*(study.c[name] for name in STUDY), *(patient.c[name] for name in PATIENT)]


class ObjectFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which objects; None: all. `after` is the last id of the page before."""

    study: str | None = None
    series: str | None = None
    object: str | None = None
    after: str | None = None
    limit: int = OBJECTS_MAX


def list_objects(connection: Connection, wanted: ObjectFilter) -> Listing:
    """Return one page in the order of ids.

    Raises:
        ProtocolError: `object` or `after` is not an object id.
    """
    limit = max(1, min(wanted.limit, OBJECTS_MAX))
    rows = connection.execute(_objects_query(wanted).limit(limit + 1)).all()
    page = rows[:limit]
    ids = [row.object_id for row in page]
    nodes = _holders(connection, ids)
    names = _names(connection, ids)
    shown: list[StoredObject] = []
    room = PAGE_NAMES_BYTES
    for row in page:
        own = names.get(row.object_id, [])
        room -= sum(map(len, own))
        if room < 0 and shown:
            break
        shown.append(_stored_object(row, sorted(nodes.get(row.object_id, [])), own))
    more = len(shown) < len(rows)
    return Listing(objects=shown, next=shown[-1].object_id if more else None)


def list_studies(connection: Connection, after: str | None, limit: int) -> Studies:
    """Return one page in the order of Study Instance UIDs."""
    limit = max(1, min(limit, STUDIES_MAX))
    number_of_series = (
        select(func.count()).where(series.c.study_instance_uid == study.c.study_instance_uid).scalar_subquery()
    )
    shown = instance.join(object_, object_.c.object_id == instance.c.object_id)
    number_of_instances = (
        select(func.count())
        .select_from(shown)
        .where(instance.c.study_instance_uid == study.c.study_instance_uid, object_.c.visible.is_(True))
        .scalar_subquery()
    )
    query = (
        select(*_STUDY_COLUMNS, number_of_series.label("series"), number_of_instances.label("instances"))
        .select_from(study.join(patient, patient.c.patient_key == study.c.patient_key))
        .where(study.c.study_instance_uid > (after or ""))
        .order_by(study.c.study_instance_uid)
        .limit(limit + 1)
    )
    rows = connection.execute(query).all()
    found = [Study(**{name: getattr(row, name) for name in Study.__struct_fields__}) for row in rows[:limit]]
    return Studies(studies=found, next=found[-1].study_instance_uid if len(rows) > limit else None)


def read_totals(connection: Connection) -> dict[str, int]:
    """Return the numbers of committed objects, their bytes, the bytes of one stored copy of each, and studies."""
    row = connection.execute(select(totals.c.objects, totals.c.bytes, totals.c.stored_bytes)).one()
    studies = connection.execute(select(func.count()).select_from(study)).scalar_one()
    return {"objects": row.objects, "bytes": row.bytes, "stored_bytes": row.stored_bytes, "studies": studies}


def read_transfers(connection: Connection) -> list[TransferStatus]:
    """Return the transfers that are open, then those committed last, newest first, at most `TRANSFERS_MAX` of each."""
    found: list[TransferStatus] = []
    for state in ("open", "committed"):
        query = select(transfer).where(transfer.c.state == state).order_by(transfer.c.transfer_key.desc())
        found += [_transfer_status(row) for row in connection.execute(query.limit(TRANSFERS_MAX))]
    return found


def _objects_query(wanted: ObjectFilter) -> Select[Any]:
    query = select(object_).where(object_.c.visible.is_(True)).order_by(object_.c.object_id)
    if wanted.study is not None or wanted.series is not None:
        query = query.join(instance, instance.c.object_id == object_.c.object_id)
    if wanted.study is not None:
        query = query.where(instance.c.study_instance_uid == wanted.study)
    if wanted.series is not None:
        query = query.where(instance.c.series_instance_uid == wanted.series)
    if wanted.object is not None:
        query = query.where(object_.c.object_id == _id(wanted.object))
    return query if wanted.after is None else query.where(object_.c.object_id > _id(wanted.after))


def _id(text: str) -> bytes:
    if not is_object_id(text):
        raise ProtocolError("an object id is 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


def _holders(connection: Connection, ids: list[bytes]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    query = select(replica.c.object_id, replica.c.node_id).where(is_there())
    for row in rows_of(connection, query, replica.c.object_id, ids):
        found.setdefault(row.object_id, []).append(row.node_id)
    return found


def _names(connection: Connection, ids: list[bytes]) -> dict[bytes, list[str]]:
    """Return the names by object, at most `NAMES_MAX` of each, in their own order.

    Reading stops at the object with which they are more than a page has room for: memory is bounded as the page is.
    They are read in the order in which they rest: to sort them, SQLite would first write all of them to a file.
    """
    found: dict[bytes, list[str]] = {}
    room = PAGE_NAMES_BYTES
    if ids:
        query = select(object_name.c.object_id, object_name.c.name).where(object_name.c.object_id.in_(ids))
        with connection.execute(query.order_by(object_name.c.object_id, object_name.c.name_digest)) as rows:
            for row in rows:
                own = found.setdefault(row.object_id, [])
                if len(own) == NAMES_MAX:
                    continue
                own.append(row.name)
                room -= len(row.name)
                if room < 0:
                    break
    return {object_id: sorted(names) for object_id, names in found.items()}


def _stored_object(row: Any, node_ids: list[str], names: list[str]) -> StoredObject:
    return StoredObject(
        object_id=row.object_id.hex(),
        size_bytes=row.size_bytes,
        stored_bytes=row.stored_bytes,
        encoding=row.encoding,
        node_ids=node_ids,
        names=names,
        identity=_identity.decode(row.identity),
    )


def _transfer_status(row: Any) -> TransferStatus:
    return TransferStatus(
        transfer_id=row.transfer_id,
        sender=row.sender,
        state=row.state,
        objects=row.offered_objects,
        bytes=row.offered_bytes,
        durable_objects=row.durable_objects,
        opened_at=row.opened_at,
    )
