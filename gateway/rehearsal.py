"""A transfer that is played through at the start and taken back, so that the first real one is as fast as the next.

What is new to a process, above all some thirty statements to be compiled, took a first transfer about 20 ms (measured).
Refuses to do: leaving anything in the catalogue.
"""

import contextlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from gateway import commits, transfers
from gateway.database import Database
from gateway.disks import note_disk
from transfer.api import Commit, Offered, OpenTransfer
from transfer.merkle import merkle_root
from transfer.objects import Identity, object_id
from transfer.receipts import Receipt, ReceiptBatch
from transfer.tls import Peer

NAME: Final = "rehearsal"
_BYTES: Final = b"an object that nobody has"
_SENDER: Final = Peer(NAME, "workstation", "0" * 64)
_IDENTITY: Final = Identity(
    sop_instance_uid="2.25.1", study_instance_uid="2.25.2", series_instance_uid="2.25.3", patient_id=NAME
)


class _TakenBackError(Exception):
    """Ends the unit, so that nothing of it is kept."""


async def rehearse(database: Database, key: Ed25519PrivateKey) -> None:
    """Play through a transfer of one object.

    Raises:
        StorageError: the catalogue cannot be written.
    """
    with contextlib.suppress(_TakenBackError):  # as it is meant to end
        await database.write(lambda connection: _play(connection, key))


def _play(connection: Connection, key: Ed25519PrivateKey) -> None:
    name = object_id(_BYTES)
    note_disk(connection, node_id=NAME, incarnation=NAME)
    transfers.open_transfer(connection, NAME, OpenTransfer(), _SENDER, open_max=1)
    transfers.offer(connection, NAME, _SENDER, [Offered(object_id=name, size_bytes=len(_BYTES), name=NAME)])
    receipt = Receipt(
        object_id=bytes.fromhex(name),
        size_bytes=len(_BYTES),
        stored_bytes=len(_BYTES),
        encoding="raw",
        node_ids=[NAME],
        identity=_IDENTITY,
    )
    transfers.take_receipts(connection, NAME, _SENDER, [ReceiptBatch(NAME, NAME, NAME, [receipt])])
    commits.commit(connection, NAME, _SENDER, Commit(objects=1, merkle_root=merkle_root([name]), receipts=[]), key)
    raise _TakenBackError
