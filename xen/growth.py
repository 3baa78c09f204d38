"""How many nodes there should be as those that there are fill up: what is seen -> a number, or why it stays. Pure.

    share = what is free / all room, of the nodes that serve and are not drained
    share < `free_share_min`, and every node that is wanted serves
        -> n more, the fewest with (free + n * each) / (all + n * each) >= `free_share_min`; at most `count_max` in all

`each` is the room that a new node brings: as the others have on average, more by what its disk is larger. So many come
at once that nobody waits for one machine after the other while images arrive. What keeps it from running away:
* a node that was asked for and does not serve yet is room that is coming: nothing is added before all of them serve;
* a node that served and is silent is for its replacement, or for a person (`xen.plan`); its room counts for nothing;
* room that is not known is not full, and a pool without any node has no room that could be short;
* what does not fit on the hosts is not asked for: as many as fit, and by how much the others do not.
It never answers fewer than are wanted, so there is nothing to swing between and no second threshold.
Refuses to do: writing the number (`xen.growing`), making machines (`xen.plan`), asking anybody, clocks.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Final

import msgspec

from transfer.errors import FullError
from xen.actions import Make
from xen.cloud import ABSENT, Node
from xen.observed import Machine, Pool, Stage, Value
from xen.plan import make_plan
from xen.wanted import Wanted, number_of

NOT_STANDING: Final = frozenset({Stage.RAW, Stage.LEAVING, Stage.CONDEMNED})
NAMED_MAX: Final = 5


class Outcome(StrEnum):
    """What a look at the room came to."""

    OFF = "off"  # the file does not let it grow
    ENOUGH = "enough"
    UNKNOWN = "unknown"  # no node has said how much room it has
    COMING = "coming"  # too little, and nodes are on their way, or leave
    HELD = "held"  # too little, and one that served is silent
    MAXIMUM = "maximum"  # too little, and there are as many nodes as there may be
    NO_ROOM = "no_room"  # too little, and the hosts take not one node more
    GROWN = "grown"  # too little, and more nodes are to be made


NEEDS_SOMEBODY: Final = frozenset({Outcome.HELD, Outcome.MAXIMUM, Outcome.NO_ROOM})


class Verdict(Value, frozen=True, kw_only=True):
    """How many nodes there should be, and why; `line` for people, '' where there is nothing to say.

    `short`: by how much those do not fit that would be needed beside `count`, '' if all do.
    """

    outcome: Outcome
    count: int
    line: str = ""
    short: str = ""


class Room(Value, frozen=True, kw_only=True):
    """The room of the nodes that take objects. `disk_bytes`: their machines' disks, image and reserve included."""

    nodes: int
    free_bytes: int
    total_bytes: int
    disk_bytes: int

    @property
    def free_ratio(self) -> float | None:
        """The share that is free; None if nothing is known."""
        return self.free_bytes / self.total_bytes if self.total_bytes else None

    def each_bytes(self, disk_bytes: int) -> Fraction:
        """Return the room of a new node whose machine has a disk of `disk_bytes`.

        A disk smaller than the others' is not counted: there is less room then than is said here, and the look after
        the node serves asks for what is missing. A guess that is too low brings too many, and none goes by itself.
        """
        larger = Fraction(disk_bytes) - Fraction(self.disk_bytes, self.nodes)
        return Fraction(self.total_bytes, self.nodes) + max(Fraction(0), larger)


def room_of(wanted: Wanted, pool: Pool, nodes: Mapping[str, Node]) -> Room:
    """Return the room of the file's nodes that serve, are not drained, and have said how much they have."""
    found = [
        (machine, node)
        for machine in _standing(wanted, pool)
        if (node := nodes.get(machine.name, ABSENT)).state == "live" and not node.draining and node.total_bytes > 0
    ]
    return Room(
        nodes=len(found),
        free_bytes=sum(node.free_bytes for _, node in found),
        total_bytes=sum(node.total_bytes for _, node in found),
        disk_bytes=sum(machine.disk_bytes or wanted.disk_bytes for machine, _ in found),
    )


def more_nodes(free_bytes: int, total_bytes: int, each_bytes: Fraction, share_min: float) -> int:
    """Return the fewest empty nodes of `each_bytes` (> 0) that bring the free share to `share_min` (in (0, 1))."""
    share = Fraction(repr(share_min))  # the decimal that somebody wrote, and no rounding that makes it one more or less
    return max(0, math.ceil((share * total_bytes - free_bytes) / (each_bytes * (1 - share))))


def judge(wanted: Wanted, pool: Pool, nodes: Mapping[str, Node], *, count_max: int, free_share_min: float) -> Verdict:
    """Return how many nodes there should be: `wanted.count`, or more up to `count_max` (0: never).

    Raises:
        SettingsError: the pool has no such template, storage or network.
    """
    if not count_max:
        return Verdict(outcome=Outcome.OFF, count=wanted.count)
    room = room_of(wanted, pool, nodes)
    if not room.total_bytes:
        return Verdict(outcome=Outcome.UNKNOWN, count=wanted.count)
    missing = more_nodes(room.free_bytes, room.total_bytes, room.each_bytes(wanted.disk_bytes), free_share_min)
    if not missing:
        return Verdict(outcome=Outcome.ENOUGH, count=wanted.count)
    little = f"less than {free_share_min * 100:g} % of the nodes' room is free"
    held = _held(wanted, pool, nodes, little)
    if held is not None:
        return held
    if wanted.count >= count_max:
        line = f"{little}, and there are {wanted.count} nodes, as many as `growth.count_max` allows; raise it"
        return Verdict(outcome=Outcome.MAXIMUM, count=wanted.count, line=line)
    return _fitting(wanted, pool, nodes, min(count_max, wanted.count + missing), little)


def _held(wanted: Wanted, pool: Pool, nodes: Mapping[str, Node], little: str) -> Verdict | None:
    """Return the verdict while not everything is as wanted; None when it is."""
    standing = _standing(wanted, pool)
    if len(standing) != wanted.count or any(each.stage != Stage.SERVING for each in standing):
        return Verdict(outcome=Outcome.COMING, count=wanted.count)
    silent = sorted(each.name for each in standing if nodes.get(each.name, ABSENT).state != "live")
    if not silent:
        return None
    line = f"{little}, and none is added before all that are wanted serve; it lacks {_some(silent)}"
    return Verdict(outcome=Outcome.HELD, count=wanted.count, line=line)


def _fitting(wanted: Wanted, pool: Pool, nodes: Mapping[str, Node], count: int, little: str) -> Verdict:
    """Return `count`, or as many as the hosts take."""
    more = msgspec.structs.replace(wanted, count=count)
    short = ""
    try:
        make_plan(more, pool, nodes)
    except FullError as error:
        short = error.message
        fitting = make_plan(more, pool, nodes, partial=True).actions
        count = wanted.count + sum(isinstance(each, Make) for each in fitting)
    if count == wanted.count:
        return Verdict(outcome=Outcome.NO_ROOM, count=count, line=f"{little}, and none is added: {short}")
    short = short.replace("Nothing was done", "What fits is done")
    line = f"{little}: {count} nodes are wanted, not {wanted.count}"
    return Verdict(outcome=Outcome.GROWN, count=count, line=line, short=short)


def _standing(wanted: Wanted, pool: Pool) -> Sequence[Machine]:
    """Return the file's own machines that are there to stay, or to come."""
    ours = (each for each in pool.machines if number_of(each.name, wanted.prefix) is not None)
    return [each for each in ours if each.stage not in NOT_STANDING]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} others" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
