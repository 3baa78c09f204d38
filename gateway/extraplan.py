"""Which copy goes where there are more than wished: a pure function of who holds what and how full nodes are.

Copies that share a failure domain with another go first, then those on the fullest node. As many as wished stay, and
these are named, so that they can be read before anything goes. Refuses to do: I/O; counting a copy that is on a node of
which nothing is known now.
"""

from collections.abc import Iterable, Sequence

import msgspec

from gateway.fill import Fill


class Held(msgspec.Struct, frozen=True):
    """An object: its size as stored, all who hold it, and how many replicas are wished (1 at least)."""

    object_id: bytes
    stored_bytes: int
    holders: frozenset[str]
    wished: int


class Drop(msgspec.Struct, frozen=True):
    """A copy that is not needed, and the copies that stay."""

    object_id: bytes
    stored_bytes: int
    node_id: str
    keepers: frozenset[str]


def choose(objects: Iterable[Held], fills: Sequence[Fill]) -> list[Drop]:
    """Return the copies that may go; only nodes in `fills` count, as holders and as keepers."""
    known = {fill.node_id: fill for fill in fills}
    return [drop for one in objects for drop in _choose(one, known)]


def _choose(one: Held, known: dict[str, Fill]) -> list[Drop]:
    keepers = [known[node_id] for node_id in sorted(one.holders & known.keys())]
    going: list[str] = []
    while len(keepers) > max(1, one.wished):
        domains = [fill.failure_domain for fill in keepers]
        worst = max(keepers, key=lambda fill: (domains.count(fill.failure_domain) > 1, fill.ratio, fill.node_id))
        keepers.remove(worst)
        going.append(worst.node_id)
    kept = frozenset(fill.node_id for fill in keepers)
    return [Drop(one.object_id, one.stored_bytes, node_id, kept) for node_id in going]
