"""Where nodes have no room, one place of a transfer waits for all, and the others come when there is room again."""

import itertools

import trio
from trio.testing import MockClock

from transfer.api import Go, Node
from transfer.errors import BusyError, FascicleError
from transfer.fleet import CROWDED_S, Fleet, Place
from transfer.ledger import Ledger
from transfer.outcomes import Counters

TOLD_S = 2.0


def node(name: str) -> Node:
    return Node(name, "127.0.0.1", 1, 1.0, "00", True)


class Crowd:
    """Nodes that refuse flows until `free_s`; keeps when they were asked."""

    def __init__(self, free_s: float, *names: str) -> None:
        self.asked_s: list[float] = []
        self.had: set[int] = set()
        self._free_s = free_s
        self._numbers = itertools.count()
        self.go = Go("t", [node(name) for name in names], 1, b"ticket", 120.0)

    async def converse(self, _: Fleet, place: Place, node: Node) -> None:
        number = next(self._numbers)
        self.asked_s.append(trio.current_time())
        await trio.sleep(0.01)
        if trio.current_time() < self._free_s and node.node_id == "busy":
            raise BusyError("no place", retry_after_s=TOLD_S)
        self.had.add(number)
        await trio.sleep_forever()

    async def renew(self, _: str) -> Go:
        raise FascicleError("a crowd need not ask the gateway")

    async def run(self, until_s: float, flows: int) -> None:
        fleet = Fleet(Ledger(Counters(), 1e6), self.go, converse=self.converse, renew=self.renew, jitter=lambda: 0.0)
        with trio.move_on_after(until_s):
            await fleet.serve(flows)

    def watch(self, until_s: float, flows: int = 4) -> None:
        trio.run(self.run, until_s, flows, clock=MockClock(autojump_threshold=0))


def test_one_place_waits_for_all() -> None:
    crowd = Crowd(1e6, "busy")
    crowd.watch(CROWDED_S - 0.1)
    assert len([at for at in crowd.asked_s if at < 1]) == 4
    later = [at for at in crowd.asked_s if at >= 1]
    assert len(later) == (CROWDED_S - 0.1) // (TOLD_S + 0.01)


def test_all_have_their_flow_when_there_is_room_again() -> None:
    crowd = Crowd(5.0, "busy")
    crowd.watch(CROWDED_S + 5)
    assert len(crowd.had) == 4


def test_a_node_with_room_gets_all_flows_at_once() -> None:
    crowd = Crowd(1e6, "busy", "free")
    crowd.watch(CROWDED_S - 0.1)
    assert len(crowd.had) == 4
