"""Nodes that are to be taken away: those that the configuration says, and those that an operator said by a command.

What a node drains of is copied to others by the repairer, which tells after each of its passes how much is left. It is
safe to switch a node off when a pass that began after its last ticket ended found nothing that needs it: no object
short of replicas without it, and none of an open transfer on it. Refuses to do: copying, keeping (`gateway.register`
does).
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from gateway.register import Record, Register
from gateway.repairplan import Shortage
from gateway.schema import offered, replica
from gateway.settings import GatewaySettings
from transfer.api import DrainStatus
from transfer.errors import ConflictError, NotStoredError


class Left(msgspec.Struct, frozen=True):
    """What a node holds and others do not yet hold often enough, and what open transfers have on it."""

    objects: int = 0
    bytes: int = 0
    claimed_objects: int = 0

    def plus(self, node_id: str, shortages: Iterable[Shortage]) -> "Left":
        """Count those of the shortages that are on the node."""
        mine = [short.stored_bytes for short in shortages if node_id in short.holders]
        return replace(self, objects=self.objects + len(mine), bytes=self.bytes + sum(mine))

    def claimed(self, number: int) -> "Left":
        """Return it with so many objects of open transfers."""
        return replace(self, claimed_objects=number)


class Draining:
    """The nodes that drain, and how far they are."""

    def __init__(self, config: GatewaySettings, register: Register) -> None:
        self._fixed = frozenset(entry.node_id for entry in config.node if entry.draining)
        self._register = register
        self._settle_s = config.ticket_lifetime_s
        self._since_s: dict[str, float] = {}
        self._left: dict[str, Left] = {}
        self._safe: set[str] = set()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def node_ids(self) -> frozenset[str]:
        """All that drain."""
        return self._fixed.union(self._register.record.draining)

    @property
    def leaving(self) -> frozenset[str]:
        """Those that have drained for as long as a ticket lasts: no new promise rests on a copy that is there.

        From then on a pass may find that they are safe to switch off.
        """
        ended_s = time.monotonic() - self._settle_s
        since_s = self._since_s.copy()  # of another thread than the one that asks
        return frozenset(node_id for node_id in self.node_ids if since_s.get(node_id, ended_s + 1) <= ended_s)

    @property
    def is_unsettled(self) -> bool:
        """Whether one drains of which it is not known that it is safe to switch off."""
        return not self._safe >= self.node_ids

    async def begin(self, node_id: str, known: Iterable[str]) -> None:
        """Have a node drain, durably.

        Raises:
            NotStoredError: no node of that name.
            ConflictError: no other node would be left.
        """
        others = set(known) - {node_id}
        if node_id not in set(known):
            raise NotStoredError(f"`{node_id}` is not a node of this cluster; `fascicle status` lists them")
        if not others - self.node_ids:
            raise ConflictError(f"`{node_id}` is the last node that does not drain; add another first")

        def edit(record: Record) -> tuple[Record, None]:
            return replace(record, draining=sorted({*record.draining, node_id})), None

        await self._register.change(edit)
        self._restart(node_id)

    async def end(self, node_id: str) -> None:
        """Let a node take objects again.

        Raises:
            ConflictError: the configuration says that it drains.
        """
        if node_id in self._fixed:
            raise ConflictError(f"`{node_id}` drains because gateway.toml says so; change that, and start it again")

        def edit(record: Record) -> tuple[Record, None]:
            return replace(record, draining=[each for each in record.draining if each != node_id]), None

        await self._register.change(edit)
        self._restart(node_id)

    def note(self, left: Mapping[str, Left], began_s: float) -> None:
        """Take in what a pass that began at `began_s` (monotonic) found of each node that drained then."""
        self._safe &= set(left)
        for node_id, one in left.items():
            since_s = self._since_s.setdefault(node_id, began_s)
            self._left[node_id] = one
            if one == Left() and began_s >= since_s + self._settle_s:
                self._safe.add(node_id)
            else:
                self._safe.discard(node_id)

    def took(self, node_id: str) -> None:
        """Note that the node took objects by itself: what was known of it is not, until a pass that begins now."""
        if node_id in self.node_ids:
            self._safe.discard(node_id)
            if node_id in self._since_s:
                self._since_s[node_id] = max(self._since_s[node_id], time.monotonic() - self._settle_s)
            self.on_change()

    def statuses(self) -> list[DrainStatus]:
        """Return how each stands, by name; numbers are -1 until it was looked at."""
        return [self._status(node_id) for node_id in sorted(self.node_ids)]

    def _status(self, node_id: str) -> DrainStatus:
        left = self._left.get(node_id, Left(-1, -1, -1))
        return DrainStatus(
            node_id=node_id,
            left_objects=left.objects,
            left_bytes=left.bytes,
            claimed_objects=left.claimed_objects,
            safe=node_id in self._safe,
        )

    def _restart(self, node_id: str) -> None:
        self._safe.discard(node_id)
        self._left.pop(node_id, None)
        self._since_s[node_id] = time.monotonic()
        self.on_change()


def count_claims(connection: Connection, node_ids: Sequence[str]) -> dict[str, int]:
    """Return how many objects that open transfers offered are on each of these nodes."""
    joined = offered.join(replica, replica.c.object_id == offered.c.object_id)
    number = select(replica.c.node_id, func.count(offered.c.object_id.distinct())).select_from(joined)
    rows = connection.execute(number.where(replica.c.node_id.in_(node_ids)).group_by(replica.c.node_id))
    return dict.fromkeys(node_ids, 0) | {row[0]: row[1] for row in rows}
