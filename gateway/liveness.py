"""Which nodes are there: what their signed heartbeats said last, and how long ago by this machine's clock.

A node is live while its heartbeats come, silent when they stop, unknown when none came since the gateway started.
Silence says nothing about data: what a silent node holds stays listed. A datagram that was seen before, or an older
one, changes nothing. Refuses to do: sockets (`gateway.heartbeats`), clocks (callers pass the time).
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from gateway.placement import Candidate
from transfer.api import NodeStatus
from transfer.heartbeat import Heartbeat

State = Literal["live", "silent", "unknown"]
TWIN_BEATS: Final = 3  # each newer than the one before: a restarted node's last datagram may come late, but not three


class Seen(msgspec.Struct, frozen=True):
    """The last heartbeat of a node, and when it came (monotonic seconds)."""

    beat: Heartbeat
    at_s: float


class OtherLife(msgspec.Struct, frozen=True):
    """A life of a node beside its newest one: how often it was heard since that began, and when last."""

    started_ns: int
    sequence: int
    beats: int
    at_s: float


class Nodes:
    """The cluster's nodes by id."""

    def __init__(self, node_ids: Iterable[str], silent_after_s: float) -> None:
        self._node_ids = sorted(node_ids)
        self._silent_after_s = silent_after_s
        self._seen: dict[str, Seen] = {}
        self._domains: dict[str, str] = {}
        self._since_s: float | None = None
        self._others: dict[str, OtherLife] = {}

    @property
    def node_ids(self) -> frozenset[str]:
        """All that take part now."""
        return frozenset(self._node_ids)

    def add(self, node_id: str) -> None:
        """Take a node in; it is unknown until its first heartbeat."""
        if node_id not in self._node_ids:
            self._node_ids = sorted([*self._node_ids, node_id])

    def remove(self, node_id: str) -> None:
        """Count on a node no more. What the catalogue says it holds stays listed."""
        self._node_ids = [known for known in self._node_ids if known != node_id]
        self._seen.pop(node_id, None)

    def record(self, beat: Heartbeat, now_s: float) -> bool:
        """Take a verified heartbeat; False if it is not newer than the last one."""
        last = self._seen.get(beat.node_id)
        if last is not None and not is_newer(beat, last.beat) and not self._is_only_life(beat, last, now_s):
            return False
        if last is not None and beat.started_ns != last.beat.started_ns:
            self._others[beat.node_id] = OtherLife(last.beat.started_ns, last.beat.sequence, 0, now_s)
        self._seen[beat.node_id] = Seen(beat, now_s)
        return True

    def state(self, node_id: str, now_s: float) -> State:
        """Return how the node stands."""
        seen = self._seen.get(node_id)
        if seen is None:
            return "unknown"
        return "live" if now_s - seen.at_s <= self._silent_after_s else "silent"

    def live(self, now_s: float) -> list[Heartbeat]:
        """Return the last heartbeats of the live nodes, by node id."""
        return [self._placed(self._seen[key].beat) for key in self._node_ids if self.state(key, now_s) == "live"]

    def last(self, node_id: str) -> Heartbeat | None:
        """Return the node's last heartbeat, however old; None when there was none."""
        seen = self._seen.get(node_id)
        return None if seen is None else seen.beat

    def place(self, domains: Mapping[str, str]) -> None:
        """Take these failure domains, by node, for the true ones from now on, whatever heartbeats say."""
        self._domains = dict(domains)

    def _placed(self, beat: Heartbeat) -> Heartbeat:
        domain = self._domains.get(beat.node_id)
        return beat if domain is None else replace(beat, failure_domain=domain)

    def gone(self, now_s: float, grace_s: float) -> set[str]:
        """Return the nodes that are silent for `grace_s` and more; one never heard, since this was asked first."""
        since_s = self._since_s = now_s if self._since_s is None else self._since_s
        heard = {key: self._seen[key].at_s if key in self._seen else since_s for key in self._node_ids}
        return {key for key, at_s in heard.items() if now_s - at_s >= grace_s + self._silent_after_s}

    def twins(self, now_s: float) -> frozenset[str]:
        """Return the nodes that run twice: a disk was cloned, or one identity is used by two machines."""
        enough = (key for key, other in self._others.items() if other.beats >= TWIN_BEATS)
        return frozenset(key for key in enough if now_s - self._others[key].at_s <= self._silent_after_s)

    def _is_only_life(self, beat: Heartbeat, newest: Seen, now_s: float) -> bool:
        """Take in an older heartbeat: late, sent again, or of a life that goes on beside the newest one or after it."""
        known = self._others.get(beat.node_id) or OtherLife(beat.started_ns, -1, 0, now_s)
        if beat.started_ns == newest.beat.started_ns:
            if beat.sequence < newest.beat.sequence or beat == newest.beat:
                return False
            known = known if known.started_ns == beat.started_ns else OtherLife(beat.started_ns, -1, 0, now_s)
        if beat.started_ns < known.started_ns or (beat.started_ns, beat.sequence) <= (known.started_ns, known.sequence):
            return False
        beats = known.beats + 1 if beat.started_ns == known.started_ns else 1
        self._others[beat.node_id] = OtherLife(beat.started_ns, beat.sequence, beats, now_s)
        return beats >= TWIN_BEATS and now_s - newest.at_s > self._silent_after_s

    def count(self, state: State, now_s: float) -> int:
        """Return the number of nodes in a state."""
        return sum(self.state(key, now_s) == state for key in self._node_ids)

    def statuses(self, now_s: float) -> list[NodeStatus]:
        """Return every node of the cluster as the API shows it."""
        return [self._status(key, now_s) for key in self._node_ids]

    def _status(self, node_id: str, now_s: float) -> NodeStatus:
        seen = self._seen.get(node_id)
        if seen is None:
            nothing = {"free_bytes": 0, "used_bytes": 0, "objects": 0, "flows": 0}
            return NodeStatus(node_id=node_id, address="", state="unknown", heartbeat_age_s=None, **nothing)
        beat = seen.beat
        return NodeStatus(
            node_id=node_id,
            address=f"{beat.host}:{beat.port}",
            state=self.state(node_id, now_s),
            free_bytes=beat.free_bytes,
            used_bytes=beat.used_bytes,
            objects=beat.objects,
            flows=beat.flows,
            heartbeat_age_s=round(now_s - seen.at_s, 3),
        )


def is_newer(beat: Heartbeat, last: Heartbeat) -> bool:
    """Tell whether a heartbeat was made after another of the same node."""
    return (beat.started_ns, beat.sequence) > (last.started_ns, last.sequence)


def candidate(beat: Heartbeat) -> Candidate:
    """Return what placement must know of a node."""
    return Candidate(beat.node_id, beat.failure_domain, beat.free_bytes)
