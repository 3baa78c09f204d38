"""Which copies move from full nodes to emptier ones: a pure function of who holds what and how full nodes are.

A copy moves from the fullest node that holds its object to the emptiest that does not, where that has the room, is
emptier by more than `least_spread` and still emptier after the move, and shares no failure domain with a copy that
stays. Every move brings two nodes nearer to each other, so there is an end. Refuses to do: I/O; moving an object that
is short, or held by a node that is not live.
"""

from collections.abc import Iterable, Sequence

import msgspec

from gateway.extraplan import Held
from gateway.fill import Fill
from gateway.repairplan import OVERHEAD_BYTES


class Move(msgspec.Struct, frozen=True):
    """A copy that is to be made at `target`, so that the one at `source` may go."""

    object_id: bytes
    stored_bytes: int
    source: str
    target: str


class MovePlan(msgspec.Struct, frozen=True):
    """The moves, and how full nodes are when they are done."""

    moves: list[Move]
    fills: list[Fill]


def plan_moves(objects: Iterable[Held], fills: Sequence[Fill], *, least_spread: float, budget_bytes: int) -> MovePlan:
    """Return moves of about `budget_bytes` at most, in the order of the objects."""
    now = {fill.node_id: fill for fill in fills}
    moves: list[Move] = []
    for one in objects:
        if budget_bytes <= 0:
            break
        move = _move(one, now, least_spread)
        if move is not None:
            moves.append(move)
            now[move.source] = now[move.source].with_less(one.stored_bytes)
            now[move.target] = now[move.target].with_more(one.stored_bytes)
            budget_bytes -= one.stored_bytes
    return MovePlan(moves, [now[node_id] for node_id in sorted(now)])


def _move(one: Held, now: dict[str, Fill], least_spread: float) -> Move | None:
    if len(one.holders) != one.wished or not one.holders <= now.keys():
        return None
    source = max((now[node_id] for node_id in one.holders), key=_fullness)
    staying = {now[node_id].failure_domain for node_id in one.holders - {source.node_id}}
    lighter = source.with_less(one.stored_bytes)
    fitting = [
        fill
        for fill in now.values()
        if fill.node_id not in one.holders
        and fill.failure_domain not in staying
        and fill.free_bytes >= one.stored_bytes + OVERHEAD_BYTES
        and fill.ratio + least_spread < source.ratio
        and fill.with_more(one.stored_bytes).ratio < lighter.ratio
    ]
    if not fitting:
        return None
    return Move(one.object_id, one.stored_bytes, source.node_id, min(fitting, key=_fullness).node_id)


def _fullness(fill: Fill) -> tuple[float, str]:
    return fill.ratio, fill.node_id
