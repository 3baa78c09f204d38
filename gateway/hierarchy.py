"""Patients, studies and series (PS3.3 A.1.2), as the first instance of each that became visible describes them.

A patient is the four attributes that describe one, together: the same Patient ID with another name is another patient
here, because Patient IDs are unique within one hospital only and may be empty. Units of work for `gateway.database`.
Refuses to do: merging or correcting what modalities wrote.
"""

from typing import Any, Final

import msgspec
from blake3 import blake3
from sqlalchemy import Connection, func, select

from gateway import schema
from gateway.database import insert_new
from gateway.receiving import chunks
from gateway.schema import instance, object_, offered
from transfer.objects import Identity

PATIENT: Final = ("patient_id", "patient_name", "patient_birth_date", "patient_sex")
STUDY: Final = ("study_instance_uid", "accession_number", "study_date", "study_time", "study_description")
SERIES: Final = ("study_instance_uid", "series_instance_uid", "modality", "series_number", "series_description")
_identity = msgspec.json.Decoder(Identity)


def write_studies(connection: Connection, transfer_key: int) -> dict[str, int]:
    """Write what the transfer's durable objects bring that are not visible yet; return their number by study."""
    firsts = _first_of_each_series(connection, transfer_key)
    describe(connection, _identities(connection, [row.object_id for row in firsts]))
    counts: dict[str, int] = {}
    for row in firsts:
        counts[row.study_instance_uid] = counts.get(row.study_instance_uid, 0) + row.objects
    return counts


def describe(connection: Connection, identities: list[Identity]) -> None:
    """Write the patients, studies and series that are not there yet; of several identities of one the first counts."""
    insert_new(connection, schema.patient, [_patient_row(found) for found in identities])
    insert_new(connection, schema.study, [_study_row(found) for found in identities])
    insert_new(connection, schema.series, [_fields(found, SERIES) for found in identities])


def count_study(connection: Connection, study_instance_uid: str) -> dict[str, Any]:
    """Return the study's UID and its numbers of visible instances and series."""
    series = func.count(instance.c.series_instance_uid.distinct()).label("series")
    query = (
        select(func.count().label("instances"), series)
        .select_from(instance.join(object_, object_.c.object_id == instance.c.object_id))
        .where(instance.c.study_instance_uid == study_instance_uid, object_.c.visible.is_(True))
    )
    row = connection.execute(query).one()
    return {"study_instance_uid": study_instance_uid, "instances": row.instances, "series": row.series}


def _first_of_each_series(connection: Connection, transfer_key: int) -> list[Any]:
    """Return one object of each series, with the number of the series' objects that are not visible yet."""
    joined = offered.join(object_, object_.c.object_id == offered.c.object_id)
    joined = joined.join(instance, instance.c.object_id == offered.c.object_id)
    each: dict[str, Any] = {"partition_by": (instance.c.study_instance_uid, instance.c.series_instance_uid)}
    numbered = (
        select(
            instance.c.study_instance_uid,
            instance.c.object_id,
            func.row_number().over(order_by=instance.c.object_id, **each).label("number"),
            func.count().over(**each).label("objects"),
        )
        .select_from(joined)
        .where(offered.c.transfer_key == transfer_key, offered.c.durable.is_(True))
        .where(object_.c.visible.is_(False), instance.c.study_instance_uid != "")
        .subquery()
    )
    return list(connection.execute(select(numbered).where(numbered.c.number == 1)))


def _identities(connection: Connection, ids: list[bytes]) -> list[Identity]:
    found: list[Identity] = []
    for some in chunks(ids):
        query = select(object_.c.identity).where(object_.c.object_id.in_(some)).order_by(object_.c.object_id)
        found += [_identity.decode(text) for text in connection.execute(query).scalars()]
    return found


def _fields(found: Identity, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names}


def _patient_row(found: Identity) -> dict[str, Any]:
    return {"patient_key": _patient_key(found)} | _fields(found, PATIENT)


def _study_row(found: Identity) -> dict[str, Any]:
    return {"patient_key": _patient_key(found)} | _fields(found, STUDY)


def _patient_key(found: Identity) -> bytes:
    return blake3(msgspec.json.encode([getattr(found, name) for name in PATIENT])).digest(16)
