"""When a node that drains is safe to switch off, beside transfers that commit at any moment."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from gateway import commits, transfers
from gateway.database import Database, Unit
from gateway.disks import note_disk
from gateway.draining import Draining
from gateway.liveness import Nodes
from gateway.metrics import Metrics
from gateway.register import Register
from gateway.repairer import Repairer
from tests.gateway.conftest import identities
from tests.gateway.kit import Identities, settings
from tests.repair.test_damage import batch
from transfer.api import Commit, Offered, OpenTransfer
from transfer.merkle import merkle_root
from transfer.objects import object_id
from transfer.tls import Peer

__all__ = ["identities"]
SENDER, KEY = Peer("ws-1", "workstation", "0" * 64), Ed25519PrivateKey.generate()
IMAGE = Offered(object_id=object_id(b"one image"), size_bytes=9)
T = TypeVar("T")


class Interrupted(Database):
    """A catalogue in which something happens behind the first page of shortages."""

    between: Callable[[], Awaitable[Any]] | None = None

    async def read(self, unit: Unit[T]) -> T:
        found = await super().read(unit)
        if isinstance(found, tuple) and self.between is not None:
            between, self.between = self.between, None
            await between()
        return found


def begin(link: Connection) -> None:
    """Have a transfer that can be committed: its object is on node-1 alone."""
    note_disk(link, "node-1", "disk-1")
    transfers.open_transfer(link, "t", OpenTransfer(), SENDER, open_max=9)
    transfers.offer(link, "t", SENDER, [IMAGE])
    transfers.take_receipts(link, "t", SENDER, [batch("node-1", "disk-1", bytes.fromhex(IMAGE.object_id))])


def end(link: Connection) -> bytes:
    root = merkle_root([IMAGE.object_id])
    return commits.commit(link, "t", SENDER, Commit(objects=1, merkle_root=root), KEY)


def test_a_node_is_not_safe_to_switch_off_while_a_commit_makes_it_needed(
    identities: Identities, tmp_path: Path
) -> None:
    """Its object is a claim when the pass begins, and shown when it ends: in neither is it overlooked."""

    async def run() -> list[bool]:
        database = Interrupted(tmp_path / "catalogue.db")
        config = settings(identities, tmp_path, ticket_lifetime_s=0.001)
        draining = Draining(config, Register(tmp_path / "register.json"))
        repairer = Repairer(
            settings=config,
            database=database,
            nodes=Nodes(["node-1", "node-2"], 3600),
            links=cast(Any, None),
            tickets=cast(Any, None),
            metrics=Metrics(),
            draining=draining,
        )
        await database.write(begin)
        await draining.begin("node-1", ["node-1", "node-2"])
        await asyncio.sleep(0.01)
        database.between = lambda: database.write(end)
        safe = []
        for _ in range(2):
            await repairer._pass()
            safe += [status.safe for status in draining.statuses()]
        assert database.between is None
        database.close()
        return safe

    assert asyncio.run(run()) == [False, False]
