"""Placement: which nodes a transfer goes to, as a pure function of the nodes' state and the transfer's id.

Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by -w / ln(u), Schindelhauer and Schomaker 2005):
every node draws a number from the hash of its id and the transfer's, scaled by its free space, and the highest win, so
that nodes come and go without moving other choices. One node of each failure domain is taken before a second of any, so
that replicas can lie on different hosts. Refuses to do: I/O, clocks, randomness.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from blake3 import blake3

_UNIT: Final = 1 << 64


class Candidate(msgspec.Struct, frozen=True):
    """A live node: what placement must know of it."""

    node_id: str
    failure_domain: str
    free_bytes: int


def place(candidates: Iterable[Candidate], *, key: str, count: int, room_bytes: int) -> list[Candidate]:
    """Return at most `count` nodes with at least `room_bytes` free, best first."""
    fitting = [node for node in candidates if node.free_bytes > 0 and node.free_bytes >= room_bytes]
    ranked = sorted(fitting, key=lambda node: (-score(node, key), node.node_id))
    return _spread(ranked)[:count]


def score(node: Candidate, key: str) -> float:
    """Return the node's draw for `key`: its chance to be highest is its share of the free space."""
    digest = blake3(f"{key}\0{node.node_id}".encode()).digest(8)
    uniform = (int.from_bytes(digest, "big") + 0.5) / _UNIT
    return node.free_bytes / -math.log(uniform) if uniform < 1 else math.inf


def weights(nodes: Sequence[Candidate]) -> list[float]:
    """Return each node's share of the load, by free space; the shares' sum is 1."""
    total = sum(node.free_bytes for node in nodes)
    return [node.free_bytes / total if total else 1 / len(nodes) for node in nodes]


def _spread(ranked: list[Candidate]) -> list[Candidate]:
    """Order by round: first the best of each failure domain, then the second best of each, and so on."""
    seen: dict[str, int] = {}
    rounds: list[tuple[int, int]] = []
    for rank, node in enumerate(ranked):
        domain = node.failure_domain or node.node_id
        rounds.append((seen.get(domain, 0), rank))
        seen[domain] = seen.get(domain, 0) + 1
    return [ranked[rank] for _, rank in sorted(rounds)]
