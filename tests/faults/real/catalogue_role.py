"""The gateway's catalogue as a campaign works it: transfers opened, offered, receipts taken, committed.

A commit's answer is the promise. The check: SQLite finds its file sound, every promised transfer is committed and
answers a repeated commit with the same bytes, its objects are listed once with a holder, and the totals are the sum of
what is listed.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, text

from gateway import commits, transfers
from gateway.database import Database, Unit
from gateway.disks import note_disk
from gateway.listing import ObjectFilter, list_objects, read_totals
from tests.faults.real.forks import Say
from tests.faults.real.role import Role, promise
from transfer.api import Commit, Offered, OpenTransfer
from transfer.errors import ConflictError, FascicleError
from transfer.merkle import merkle_root
from transfer.objects import Identity, object_id
from transfer.receipts import Receipt, ReceiptBatch
from transfer.tls import Peer

OBJECTS: Final = 3  # a transfer
BATCH: Final = (1, 2)
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
SENDER: Final = Peer("campaign", "workstation", "0" * 64)
NODE: Final = "node-1"


def ids(seed: int) -> list[str]:
    """Return the object ids of the transfer of a seed."""
    return [object_id(b"%d %d" % (seed, number)) for number in range(OBJECTS)]


def prepare(folder: Path) -> None:
    """A gateway's folder is made before its catalogue."""
    folder.mkdir(parents=True, exist_ok=True)


def batch(folder: Path, say: Say) -> None:
    """Play `BATCH`; what an error refused is tried once more."""
    database = Database(folder / "catalogue.db")
    try:
        for seed in BATCH:
            if not _play(database, seed, say) and not _play(database, seed, say):
                say({"refused": str(seed)})
    finally:
        database.close()


def _play(database: Database, seed: int, say: Say) -> bool:
    try:
        receipt = asyncio.run(_transfer(database, seed))
    except FascicleError:
        return False
    promise(say, f"{seed} {hashlib.sha256(receipt).hexdigest()}", seed)
    return True


async def _transfer(database: Database, seed: int) -> bytes:
    """Play one transfer."""
    return [await database.write(unit) for unit in units(seed)][-1]


def units(seed: int) -> list[Unit[Any]]:
    """Return the steps of a transfer; each may be repeated, as a sender does that got no answer."""
    name = f"transfer-{seed}"
    offered = [Offered(object_id=each, size_bytes=seed % 100 + 1, name=f"{seed}/{each[:8]}") for each in ids(seed)]
    batches = [ReceiptBatch(NODE, "disk-1", name, [receipt_of(seed, number) for number in range(OBJECTS)])]

    def open_once(connection: Connection) -> None:
        note_disk(connection, NODE, "disk-1")
        if not transfers.is_known(connection, name):
            transfers.open_transfer(connection, name, OpenTransfer(), SENDER, open_max=100)

    def offer_once(connection: Connection) -> None:
        if transfers.find(connection, name).state == "open":
            transfers.offer(connection, name, SENDER, offered)

    return [
        open_once,
        offer_once,
        lambda connection: transfers.take_receipts(connection, name, SENDER, batches),
        lambda connection: commits.commit(connection, name, SENDER, claim(seed), KEY),
    ]


def claim(seed: int) -> Commit:
    """Return the commit that fits the transfer of a seed."""
    return Commit(objects=OBJECTS, merkle_root=merkle_root(ids(seed)), receipts=[])


def receipt_of(seed: int, number: int) -> Receipt:
    """Return what the node says of one object of a transfer."""
    identity = Identity(
        sop_instance_uid=f"2.25.{seed}.{number}",
        study_instance_uid=f"2.25.{seed}",
        series_instance_uid=f"2.25.{seed}.1",
        patient_id=f"P{seed % 7}",
    )
    size = seed % 100 + 1
    return Receipt(bytes.fromhex(ids(seed)[number]), size, size, "raw", [NODE], identity)


def for_ever(folder: Path, first_seed: int, say: Say) -> None:
    """Commit one transfer after the other."""
    database = Database(folder / "catalogue.db")
    say({"open": True})
    for seed in itertools.count(first_seed):
        _play(database, seed, say)


def check(folder: Path, promised: Mapping[str, int]) -> list[str]:
    """Open the catalogue again, and judge."""
    database = Database(folder / "catalogue.db")
    try:
        return asyncio.run(_check(database, promised))
    finally:
        database.close()


async def _check(database: Database, promised: Mapping[str, int]) -> list[str]:
    problems = await database.read(sound)
    listed = await database.read(_listed)
    for key, seed in promised.items():
        try:
            receipt = await database.write(
                lambda connection, seed=seed: commits.commit(connection, f"transfer-{seed}", SENDER, claim(seed), KEY)
            )
        except FascicleError as error:
            problems.append(f"LOST transfer-{seed}: {error.code}: {error.message}")
            continue
        if key != f"{seed} {hashlib.sha256(receipt).hexdigest()}":
            problems.append(f"LOST transfer-{seed}: another receipt than the one that was given")
        problems += [f"LOST {each} of transfer-{seed}" for each in ids(seed) if listed.get(each) != [NODE]]
    return problems


def sound(connection: Connection) -> list[str]:
    """Return what SQLite finds wrong with its file."""
    found: list[Any] = connection.execute(text("PRAGMA integrity_check")).scalars().all()
    foreign = connection.execute(text("PRAGMA foreign_key_check")).all()
    return [f"SQLite: {line}" for line in found if line != "ok"] + [f"SQLite: foreign key: {row}" for row in foreign]


def _listed(connection: Connection) -> dict[str, list[str]]:
    """Return what the gateway lists, page by page, with its holders.

    Raises:
        ConflictError: something is listed twice, or the totals are another sum.
    """
    found: dict[str, list[str]] = {}
    size, after = 0, None
    while True:
        page = list_objects(connection, ObjectFilter(after=after))
        for each in page.objects:
            if each.object_id in found:
                raise ConflictError(f"{each.object_id} is listed twice")
            found[each.object_id] = list(each.node_ids)
            size += each.size_bytes
        if page.next is None:
            break
        after = page.next
    totals = read_totals(connection)
    if (totals["objects"], totals["bytes"]) != (len(found), size):
        raise ConflictError(f"the totals say {totals}, listed are {len(found)} objects of {size} bytes")
    return found


CATALOGUE: Final = Role("catalogue", prepare, batch, for_ever, check, warm=True, writes_again=True)
