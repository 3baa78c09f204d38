"""How full nodes are: pure. A node's fill is the share of what it can hold that it holds; the spread, how they differ.

Refuses to do: judging who is live.
"""

from collections.abc import Iterable, Sequence

import msgspec

from transfer.heartbeat import Heartbeat


class Fill(msgspec.Struct, frozen=True):
    """A live node's room, by its heartbeat."""

    node_id: str
    failure_domain: str
    used_bytes: int
    free_bytes: int

    @property
    def ratio(self) -> float:
        """The share that is in use; a node without any room is full."""
        whole = self.used_bytes + self.free_bytes
        return self.used_bytes / whole if whole > 0 else 1.0

    def plus(self, size_bytes: int) -> "Fill":
        """Return it with so much more stored (or less, below zero)."""
        used = max(0, self.used_bytes + size_bytes)
        return msgspec.structs.replace(self, used_bytes=used, free_bytes=max(0, self.free_bytes - size_bytes))


def fill_of(beat: Heartbeat) -> Fill:
    """Return the fill that a heartbeat tells."""
    return Fill(beat.node_id, beat.failure_domain or beat.node_id, beat.used_bytes, beat.free_bytes)


def spread(fills: Iterable[Fill]) -> float:
    """Return by how much the fullest node's share exceeds the emptiest one's."""
    ratios: Sequence[float] = [fill.ratio for fill in fills]
    return max(ratios) - min(ratios) if ratios else 0.0
