"""What the catalogue costs: a thousand objects offered in one durable transaction, and asked for again."""

import asyncio
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Figure, best_s
from gateway import transfers
from gateway.database import Database
from transfer.api import Offered, OpenTransfer
from transfer.objects import object_id
from transfer.tls import Peer

OBJECTS = 1000
SENDER = Peer("bench", "workstation", "0" * 64)


def figures() -> Iterator[Figure]:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="fascicle-bench-") as folder:
        database = Database(Path(folder) / "catalogue.db")
        try:
            with asyncio.Runner() as runner:
                yield Figure("catalogue: transfers opened", "times", 1 / best_s(lambda: runner.run(_open(database))))
                seconds = best_s(lambda: runner.run(_offer(database)))
                yield Figure(f"catalogue: objects offered by {OBJECTS}", "objects", OBJECTS / seconds)
        finally:
            database.close()


async def _open(database: Database) -> str:
    name = uuid.uuid4().hex
    await database.write(lambda link: transfers.open_transfer(link, name, OpenTransfer(), SENDER, open_max=8))
    return name


async def _offer(database: Database) -> None:
    name = await _open(database)
    objects = [Offered(object_id=object_id(f"{name} {number}".encode()), size_bytes=1000) for number in range(OBJECTS)]
    await database.write(lambda link: transfers.offer(link, name, SENDER, objects))
