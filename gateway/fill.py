"""How full nodes are: pure. A node's fill is the share of what it can hold that it holds; the spread, how they differ.

Refuses to do: judging who is live.
"""

from collections.abc import Iterable, Sequence

import msgspec

from transfer.heartbeat import Heartbeat


class Fill(msgspec.Struct, frozen=True):
    """A live node's room. What is in its trash is neither used nor free yet, and will be free."""

    node_id: str
    failure_domain: str
    used_bytes: int
    free_bytes: int
    trash_bytes: int = 0

    @property
    def ratio(self) -> float:
        """The share that is in use; a node without any room is full."""
        whole = self.used_bytes + self.free_bytes + self.trash_bytes
        return self.used_bytes / whole if whole > 0 else 1.0

    def with_more(self, size_bytes: int) -> "Fill":
        """Return it with so much more stored."""
        used, free = self.used_bytes + size_bytes, max(0, self.free_bytes - size_bytes)
        return msgspec.structs.replace(self, used_bytes=used, free_bytes=free)

    def with_less(self, size_bytes: int) -> "Fill":
        """Return it with so much put aside."""
        used, trash = max(0, self.used_bytes - size_bytes), self.trash_bytes + size_bytes
        return msgspec.structs.replace(self, used_bytes=used, trash_bytes=trash)


def fill_of(beat: Heartbeat, trash_bytes: int) -> Fill:
    """Return the fill of a node by its heartbeat and the last look into its trash."""
    return Fill(beat.node_id, beat.failure_domain or beat.node_id, beat.used_bytes, beat.free_bytes, trash_bytes)


def spread(fills: Iterable[Fill]) -> float:
    """Return by how much the fullest node's share exceeds the emptiest one's."""
    ratios: Sequence[float] = [fill.ratio for fill in fills]
    return max(ratios) - min(ratios) if ratios else 0.0
