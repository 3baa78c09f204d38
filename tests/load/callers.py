"""Callers of the gateway alone: each opens a transfer, offers, commits what a node signed for, and lists it.

The receipts are signed here with the node's own key, for objects that no node holds: the catalogue is what is tried.
"""

import random
import time
from typing import Final

from tests.load.honest import PATIENCE_S, Done
from tests.load.parts import Parts
from transfer import credentials, merkle, pki, receipts
from transfer.api import Commit, Offered, OpenTransfer, SignedReceipts
from transfer.client import GatewayClient
from transfer.objects import Identity, object_id
from transfer.receipts import Receipt, ReceiptBatch

OBJECTS: Final = 8
SIZE_BYTES: Final = 1000


class Caller:
    """One client that does the whole conversation."""

    def __init__(self, parts: Parts) -> None:
        self._credentials, self._context = credentials.load(parts.credentials), parts.context
        self._key = pki.load_signing_key(parts.data / "nodes/node-1/identity")
        self._incarnation = (parts.data / "nodes/node-1/incarnation").read_text()

    async def __call__(self, done: Done, chance: random.Random) -> None:
        """Do it once."""
        began = time.monotonic()
        study = f"1.3.{chance.getrandbits(100)}"
        names = [object_id(chance.randbytes(16)) for _ in range(OBJECTS)]
        identity = Identity(sop_instance_uid=study, study_instance_uid=study, series_instance_uid=f"{study}.1")
        async with GatewayClient(self._credentials, patience_s=PATIENCE_S, context=self._context) as client:
            go = await client.open_transfer(OpenTransfer(objects=OBJECTS))
            await client.offer(go.transfer_id, [Offered(object_id=name, size_bytes=SIZE_BYTES) for name in names])
            signed = [
                Receipt(bytes.fromhex(name), SIZE_BYTES, SIZE_BYTES, "raw", ["node-1"], identity) for name in names
            ]
            batch = receipts.sign(ReceiptBatch("node-1", self._incarnation, go.transfer_id, signed), self._key)
            claim = Commit(
                objects=OBJECTS,
                merkle_root=merkle.merkle_root(set(names)),
                receipts=[SignedReceipts(batch=batch.batch, signature=batch.signature)],
            )
            await client.commit(go.transfer_id, claim)
            listed = {each.object_id for each in (await client.list_objects(study=study)).objects}
        if listed != set(names):
            done.failures.append(f"{len(listed)} of {OBJECTS} committed objects are listed")
        done.names |= listed
        done.bytes += OBJECTS * SIZE_BYTES
        done.took_s.append(time.monotonic() - began)
