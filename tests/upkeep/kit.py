"""Nodes that put aside, put back and delete over the wire as a gateway asks them to; in memory."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import repairer, stocktake, trash
from tests.gateway.kit import NODE_IDS, Gateway, Identities, closing_all, settings
from tests.repair.test_repairer import Holder, Nodes
from transfer import receipts
from transfer.protocol.frames import encode_control
from transfer.protocol.messages import Check, Checked, Discard, Discarded, Done, Purge, Refused, Restore, Trash, Trashed
from transfer.receipts import Receipt, ReceiptBatch

QUICK = {
    "silent_after_s": 3600,
    "repair_every_s": 0.1,
    "stocktake_every_s": 0.2,
    "upkeep_every_s": 0.05,
    "calm_s": 0.2,
    "orphan_grace_s": 0,
    "orphan_share_max": 1.0,
    "upkeep_bytes_per_s": 1 << 30,
}


@dataclasses.dataclass
class Aside:
    """One object that was put aside, and when it may go."""

    receipt: Receipt
    reason: str
    due_at_s: float


class Keeper(Holder):
    """A node with a trash; `rotten` objects do not stand being read."""

    def __init__(self, identities: Identities, node_id: str, gateway_key: str, others: Nodes) -> None:
        self.aside: dict[bytes, Aside] = {}
        self.rotten: set[bytes] = set()
        self.deleted: set[bytes] = set()
        self.answers_discards = True
        super().__init__(identities, node_id, gateway_key, others)

    def _answer(self, frame: Any, connection: Any, peer: Any) -> bytes:
        match frame:
            case Check() if frame.deep:
                return self._receipts([one for one in frame.object_ids if one in self.held and one not in self.rotten])
            case Discard():
                return self._discard(frame)
            case Restore():
                for one in frame.object_ids:
                    if one in self.aside:
                        self.held.setdefault(one, self.aside.pop(one).receipt)
                return self._receipts([one for one in frame.object_ids if one in self.held])
            case Purge():
                return self._purge(frame)
            case Trash():
                entries = [
                    Discarded(one, a.reason, a.receipt.stored_bytes, max(0, int(a.due_at_s - time.monotonic() + 1)))  # type: ignore[arg-type]  # a text of few
                    if a.due_at_s > time.monotonic()
                    else Discarded(one, a.reason, a.receipt.stored_bytes, 0)  # type: ignore[arg-type]  # a text of few
                    for one, a in sorted(self.aside.items())
                    if one > frame.after
                ]
                return encode_control(Trashed(entries[:2], len(entries) <= 2))
        return super()._answer(frame, connection, peer)

    def _receipts(self, ids: list[bytes]) -> bytes:
        here = [self.held[one] for one in ids]
        return encode_control(Checked(receipts.sign(ReceiptBatch(self.node_id, "disk-1", "", here), self.key), [], []))

    def _discard(self, asked: Discard) -> bytes:
        if not self.answers_discards:
            self.drop()
            return b""
        done = [one for one in asked.object_ids if one in self.held]
        for one in done:
            self.aside[one] = Aside(self.held.pop(one), asked.reason, time.monotonic() + asked.keep_s)
        return encode_control(Done(done, [Refused(o, "not_stored", "") for o in asked.object_ids if o not in done]))

    def _purge(self, asked: Purge) -> bytes:
        done = []
        for one in asked.object_ids:
            if one in self.aside and (asked.at_once or self.aside[one].due_at_s <= time.monotonic()):
                del self.aside[one]
                self.deleted.add(one)
                done.append(one)
        return encode_control(Done(done, [Refused(o, "conflict", "") for o in asked.object_ids if o not in done]))


Keepers = dict[str, Keeper]


@contextlib.contextmanager
def running(identities: Identities, folder: Path, **others: Any) -> Iterator[tuple[Gateway, Keepers]]:
    """A gateway whose upkeep is quick, and three nodes that were heard."""
    patched = pytest.MonkeyPatch()
    for module in (stocktake, trash):
        patched.setattr(module, "PAUSE_S", 0.0)
    patched.setattr(repairer, "SETTLE_S", 0.05)
    patched.setattr(repairer, "LOOK_S", 0.05)
    gateway = Gateway(identities, settings(identities, folder / "gateway", **(QUICK | others)))
    made: Keepers = {}
    key = identities.public_key("gateway-1")
    for node_id in NODE_IDS:
        made[node_id] = Keeper(identities, node_id, key, made)
    try:
        with closing_all(list(made.values())):
            for node in made.values():
                node.beat(gateway)
            yield gateway, made
    finally:
        gateway.stop()
        patched.undo()
