"""Which node a flow goes to. Pure bookkeeping: fewest flows for its weight first, and those in trouble last.

There may be more nodes than flows: the number of flows follows the link, not the cloud. A flow that broke, or whose
node is full, goes to a node that has none. Refuses to do: opening flows.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final

from transfer.api import Node

TROUBLE_MAX: Final = 8  # breaks in a row that count; beyond, all are as bad
WANTED_TROUBLE: Final = 3  # more breaks than another node: what only this one could go on with goes elsewhere


class Routes:
    """The nodes of a transfer and the flows that they have now."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes: dict[str, Node] = {}
        self._flows: Counter[str] = Counter()
        self._trouble: Counter[str] = Counter()
        self.update(nodes)

    @property
    def node_ids(self) -> set[str]:
        """Every node that objects may go to."""
        return set(self._nodes)

    def update(self, nodes: Iterable[Node]) -> None:
        """Take the nodes that the gateway names now, best first; those that it no longer names are left."""
        self._nodes = {node.node_id: node for node in nodes}

    def pick(self, wanted: Collection[str] = (), refusing: Collection[str] = ()) -> Node:
        """Return the node for the next flow, one of `wanted` without a flow first; count the flow until `close`.

        Those that are `refusing` come last: in time it shows whether the others are there.
        """
        order = {node_id: index for index, node_id in enumerate(self._nodes)}
        most = min(self._trouble[each] for each in order) + WANTED_TROUBLE
        first = {each for each in wanted if not self._flows[each] and self._trouble[each] <= most}
        rank = {
            each: (each in refusing, each not in first, self._trouble[each], self._load(each), order[each])
            for each in order
        }
        node_id = min(rank, key=rank.__getitem__)
        self._flows[node_id] += 1
        return self._nodes[node_id]

    def close(self, node_id: str, *, in_trouble: bool) -> None:
        """Count a flow to the node as ended; `in_trouble`: it broke, or the node takes nothing more."""
        self._flows[node_id] -= 1
        self._trouble[node_id] = min(self._trouble[node_id] + 1, TROUBLE_MAX) if in_trouble else 0

    def has_spare(self) -> bool:
        """Tell whether there is a node without a flow."""
        return any(not self._flows[node_id] for node_id in self._nodes)

    def _load(self, node_id: str) -> float:
        return self._flows[node_id] / max(self._nodes[node_id].weight, 1e-6)
