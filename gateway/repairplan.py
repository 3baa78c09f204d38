"""Which node copies what to which: a pure function of what is short and of the nodes that live.

Targets hold no copy yet, have the room, and lie in another failure domain than the copies that there are, where one is
left; among those, rendezvous hashing as for new objects. Sources are drawn by the same hash, so that all that hold
something share the reading, and by turns, because the disk of one may not give what another reads well. Refuses to do:
I/O; taking copies away, whatever there is too much of.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from gateway.placement import Candidate, score

JOB_OBJECTS: Final = 64  # transfer.protocol.messages.COPY_OBJECTS_MAX
JOB_BYTES: Final = 64 << 20  # and one object at least; less where the pace is slow
OVERHEAD_BYTES: Final = 4096  # a header, and the rest of the last block


class Shortage(msgspec.Struct, frozen=True):
    """An object, all who hold it (some may not live, or drain), and how many replicas it is short of."""

    object_id: bytes
    stored_bytes: int
    holders: frozenset[str]
    missing: int


class Job(msgspec.Struct, frozen=True):
    """Objects that `source` is to copy to `target`."""

    source: str
    target: str
    object_ids: list[bytes]
    bytes: int


class Plan(msgspec.Struct, frozen=True):
    """What is to be done, and how many objects must wait: none to read from, or none to write to."""

    jobs: list[Job]
    waiting: int


def plan(
    shortages: Iterable[Shortage],
    live: Sequence[Candidate],
    *,
    draining: AbstractSet[str] = frozenset(),
    job_bytes: int = JOB_BYTES,
    turn: int = 0,
) -> Plan:
    """Return jobs of about `job_bytes` that make as many copies as objects are short of, where nodes allow it.

    A node in `draining` is read from, and not written to. With each `turn` another of the holders is the source.
    """
    rooms = Rooms([node for node in live if node.node_id not in draining])
    readable = {node.node_id for node in live}
    pairs: dict[tuple[str, str], list[Shortage]] = {}
    waiting = 0
    for short in shortages:
        sources = _sources(short, readable)
        targets = rooms.take(short) if sources else []
        for target in targets:
            pairs.setdefault((sources[turn % len(sources)], target), []).append(short)
        waiting += len(targets) < short.missing
    jobs = [job for (source, target), each in sorted(pairs.items()) for job in _jobs(source, target, each, job_bytes)]
    return Plan(jobs, waiting)


class Rooms:
    """The live nodes, and the room that the plan so far leaves them."""

    def __init__(self, live: Sequence[Candidate]) -> None:
        self._live = live
        self._free_bytes = {node.node_id: node.free_bytes for node in live}

    def take(self, short: Shortage) -> list[str]:
        """Return nodes for the missing copies, as many as there are, and take the room off theirs."""
        used = {_domain(node) for node in self._live if node.node_id in short.holders}
        cost_bytes, key = short.stored_bytes + OVERHEAD_BYTES, short.object_id.hex()
        chosen: list[str] = []
        fitting = {
            node.node_id: node
            for node in self._live
            if node.node_id not in short.holders and self._free_bytes[node.node_id] >= cost_bytes
        }
        while fitting and len(chosen) < short.missing:
            ranked = [(_domain(node) in used, -score(node, key), node_id) for node_id, node in fitting.items()]
            best = fitting.pop(min(ranked)[2])
            chosen.append(best.node_id)
            used.add(_domain(best))
            self._free_bytes[best.node_id] -= cost_bytes
        return chosen


def _domain(node: Candidate) -> str:
    return node.failure_domain or node.node_id


def _sources(short: Shortage, live: AbstractSet[str]) -> list[str]:
    """Return who can be read from, in the order of a draw in which all have the same chance."""
    key = short.object_id.hex()
    return sorted(short.holders & live, key=lambda node_id: -score(Candidate(node_id, "", 1), key))


def _jobs(source: str, target: str, shortages: list[Shortage], job_bytes: int) -> Iterable[Job]:
    """Cut into pieces of bounded length."""
    ids: list[bytes] = []
    size = 0
    for short in shortages:
        if ids and (len(ids) == JOB_OBJECTS or size + short.stored_bytes > job_bytes):
            yield Job(source, target, ids, size)
            ids, size = [], 0
        ids.append(short.object_id)
        size += short.stored_bytes
    if ids:
        yield Job(source, target, ids, size)
