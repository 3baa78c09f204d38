"""The catalogue's tables, for SQLite and PostgreSQL alike (SQLAlchemy Core; no ORM, no dialect's own types).

Facts about objects come from receipts that nodes signed: `object`, `instance` and `replica` are filled as receipts
arrive and stay unseen (`object.visible` false) until a commit, which fills `patient`, `study`, `series` and
`object_name` and writes `event` in the same transaction. `offered` and `offered_name` are what senders claim of
transfers that are still open; they never become facts. Object ids are their 32 bytes. Refuses to do: queries.

    transfer 1-n offered, offered_name      object 1-n replica, object_name, damage      object 1-0..1 instance, wish
    patient 1-n study 1-n series 1-n instance (by UIDs, which senders of images choose: never unique by nature)
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
)

VERSION: Final = 1
metadata: Final = MetaData()
# SQLite alone: rows live in the primary key's tree; others ignore the option. Not for long rows under random keys:
# each would make a page of its own dirty, twice until it is visible, where new rows of `object` share few.
_CLUSTERED: Final[dict[str, Any]] = {"sqlite_with_rowid": False}
# SQLite gives 64 bits to INTEGER PRIMARY KEY only, not to BIGINT.
_Key: Final = BigInteger().with_variant(Integer, "sqlite")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


meta: Final = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

transfer: Final = Table(
    "transfer",
    metadata,
    Column("transfer_key", _Key, primary_key=True, autoincrement=True),
    Column("transfer_id", Text, nullable=False, unique=True),
    Column("sender", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),  # of the certificate that opened it: its owner
    Column("state", Text, nullable=False),  # open, committed, abandoned
    Column("replicas", Integer, nullable=False),
    Column("nodes_wished", Integer),
    Column("bytes_expected", BigInteger),
    Column("offered_objects", BigInteger, nullable=False, server_default="0"),
    Column("offered_bytes", BigInteger, nullable=False, server_default="0"),
    Column("durable_objects", BigInteger, nullable=False, server_default="0"),
    Column("opened_at", Text, nullable=False),
    Column("committed_at", Text),
    Column("merkle_root", Text),
    Column("receipt", LargeBinary),  # the commit's answer, given again bit for bit
    Index("transfer_by_state", "state", "transfer_key"),
    Index("transfer_by_sender", "sender", "state"),
    sqlite_autoincrement=True,
)

offered: Final = Table(
    "offered",
    metadata,
    Column("transfer_key", _Key, ForeignKey(transfer.c.transfer_key), primary_key=True),
    Column("object_id", LargeBinary, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("durable", Boolean, nullable=False, server_default=false()),
    Index("offered_by_object", "object_id"),
    **_CLUSTERED,
)

offered_name: Final = Table(
    "offered_name",
    metadata,
    Column("transfer_key", _Key, ForeignKey(transfer.c.transfer_key), primary_key=True),
    Column("object_id", LargeBinary, primary_key=True),
    Column("name_digest", LargeBinary, primary_key=True),  # names are longer than PostgreSQL's index entries may be
    Column("name", Text, nullable=False),
    **_CLUSTERED,
)

object_: Final = Table(
    "object",
    metadata,
    Column("object_id", LargeBinary, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("identity", LargeBinary, nullable=False),  # JSON of transfer.objects.Identity
    Column("visible", Boolean, nullable=False, server_default=false()),
)

object_name: Final = Table(
    "object_name",
    metadata,
    Column("object_id", LargeBinary, ForeignKey(object_.c.object_id), primary_key=True),
    Column("name_digest", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False),
    **_CLUSTERED,
)

replica: Final = Table(
    "replica",
    metadata,
    Column("object_id", LargeBinary, ForeignKey(object_.c.object_id), primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("incarnation", Text, nullable=False),  # of its disk; "" where no heartbeat had told it yet
    **_CLUSTERED,
)

wish: Final = Table(  # of objects of which more than one replica is wished
    "wish",
    metadata,
    Column("object_id", LargeBinary, ForeignKey(object_.c.object_id), primary_key=True),
    Column("replicas", Integer, nullable=False),
    **_CLUSTERED,
)

damage: Final = Table(  # copies that nodes said are gone, until the object is repaired
    "damage",
    metadata,
    Column("object_id", LargeBinary, ForeignKey(object_.c.object_id), primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("noted_at", Text, nullable=False),
    **_CLUSTERED,
)

spare: Final = Table(  # copies that may be put aside once they are so for long enough (`gateway.spares`)
    "spare",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("object_id", LargeBinary, primary_key=True),
    Column("reason", Text, nullable=False),  # orphan; or extra: put back by an operator, left alone for a while
    Column("stored_bytes", BigInteger, nullable=False),
    Column("since_s", BigInteger, nullable=False),  # of the gateway's running time
    **_CLUSTERED,
)

aside: Final = Table(  # copies put aside or damaged: what was signed of them before counts no more (`gateway.asides`)
    "aside",
    metadata,
    Column("object_id", LargeBinary, primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("noted_at", Text, nullable=False),
    **_CLUSTERED,
)

idle: Final = Table(  # open transfers: how far they were when that was last new, by the gateway's running time
    "idle",
    metadata,
    Column("transfer_key", _Key, ForeignKey(transfer.c.transfer_key), primary_key=True, autoincrement=False),
    Column("offered_objects", BigInteger, nullable=False),
    Column("durable_objects", BigInteger, nullable=False),
    Column("since_s", BigInteger, nullable=False),
)

tally: Final = Table(  # what is counted for good: copies found damaged, copies made to repair
    "tally",
    metadata,
    Column("name", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

disk: Final = Table(
    "disk",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("incarnation", Text, primary_key=True),
    Column("present", Boolean, nullable=False),
)

instance: Final = Table(
    "instance",
    metadata,
    Column("object_id", LargeBinary, ForeignKey(object_.c.object_id), primary_key=True),
    Column("sop_instance_uid", Text, nullable=False),
    _text("sop_class_uid"),
    _text("transfer_syntax_uid"),
    _text("study_instance_uid"),
    _text("series_instance_uid"),
    _text("instance_number"),
    Index("instance_by_sop_instance_uid", "sop_instance_uid"),
    Index("instance_by_series", "series_instance_uid", "object_id"),
    Index("instance_by_study", "study_instance_uid", "object_id"),
)

patient: Final = Table(
    "patient",
    metadata,
    Column("patient_key", LargeBinary, primary_key=True),  # digest of the four attributes (`gateway.hierarchy`)
    _text("patient_id"),
    _text("patient_name"),
    _text("patient_birth_date"),
    _text("patient_sex"),
    Index("patient_by_id", "patient_id"),
)

study: Final = Table(
    "study",
    metadata,
    Column("study_instance_uid", Text, primary_key=True),
    Column("patient_key", LargeBinary, ForeignKey(patient.c.patient_key), nullable=False),
    _text("accession_number"),
    _text("study_date"),
    _text("study_time"),
    _text("study_description"),
    Index("study_by_patient", "patient_key"),
)

series: Final = Table(
    "series",
    metadata,
    Column("study_instance_uid", Text, ForeignKey(study.c.study_instance_uid), primary_key=True),
    Column("series_instance_uid", Text, primary_key=True),
    _text("modality"),
    _text("series_number"),
    _text("series_description"),
)

event: Final = Table(
    "event",
    metadata,
    Column("sequence", _Key, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # JSON
    sqlite_autoincrement=True,  # a number is never given twice, also after rows are removed
)

totals: Final = Table(
    "totals",
    metadata,
    Column("totals_key", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("objects", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
)
