"""When a crowd is told to come back: soon when it is small, later when it is large, never all at once."""

import heapq
import random
from collections import Counter

import pytest

from transfer.comeback import (
    PAUSE_S_MAX,
    RETURNS_PER_S,
    RETURNS_PER_S_MAX,
    RETURNS_PER_S_MIN,
    Comeback,
    read_pause_s,
    spread_s,
    with_pause,
)
from transfer.doors import Doors
from transfer.errors import BusyError, from_code
from transfer.lobby import Lobby
from transfer.places import REST_S, Places


def test_one_who_was_turned_away_comes_back_at_once() -> None:
    comeback = Comeback()
    assert [comeback.refuse(0.0), comeback.refuse(100.0), comeback.refuse(200.5)] == [1.0, 1.0, 1.0]


def test_each_of_a_crowd_is_given_a_moment_of_its_own() -> None:
    comeback = Comeback()
    said_s = Counter(comeback.refuse(50.0) for _ in range(432))
    assert set(said_s) == set(range(1, 19))
    assert {count for pause_s, count in said_s.items() if pause_s < 18} == {RETURNS_PER_S}


def test_nobody_is_told_to_wait_for_ever() -> None:
    comeback = Comeback()
    assert max(comeback.refuse(0.0) for _ in range(100_000)) == PAUSE_S_MAX
    assert comeback.refuse(61.0) == 1.0


@pytest.mark.parametrize("crowd", [50, 400, 1400])
def test_a_crowd_that_keeps_coming_comes_evenly(crowd: int) -> None:
    chance = random.Random(crowd)
    evenly = max(RETURNS_PER_S_MIN, crowd / (PAUSE_S_MAX + 1.5))  # nobody is served, and nobody waits for longer
    comeback = Comeback()
    returns_s = [chance.random() for _ in range(crowd)]
    heapq.heapify(returns_s)
    came = [0] * 200
    while (now_s := returns_s[0]) < 200:
        came[int(now_s)] += 1
        heapq.heapreplace(returns_s, now_s + spread_s(comeback.refuse(now_s), chance.random()))
    assert sum(came[100:]) / 100 == pytest.approx(evenly, rel=0.1)
    assert max(came[100:]) < 3 * evenly


@pytest.mark.parametrize(
    ("served", "refused", "least", "most"),
    [
        (50, 1, 2 * RETURNS_PER_S, RETURNS_PER_S_MAX),  # places may be empty: more may come
        (50, 12, RETURNS_PER_S, RETURNS_PER_S),  # as it should be
        (5, 12, RETURNS_PER_S_MIN, RETURNS_PER_S / 2),  # most come in vain
    ],
)
def test_the_pace_follows_what_became_of_those_who_came(served: int, refused: int, least: float, most: float) -> None:
    comeback = Comeback()
    for number in range(10 * 60):
        now_s = number / 60
        if number % 60 < served:
            comeback.serve(now_s)
        if number % 60 < refused:
            comeback.refuse(now_s)
        elif number % 60 == 59 and refused == 1:
            comeback.refuse(now_s)  # so that somebody always waits
    assert least <= Counter(comeback.refuse(10.0) for _ in range(3000))[3.0] <= most
    assert Counter(comeback.refuse(100.0) for _ in range(3000))[3.0] == RETURNS_PER_S  # nobody waited: as at first


@pytest.mark.parametrize("work_s", [0.5, 2.0, 8.0])
def test_a_crowd_keeps_the_places_full_and_few_come_in_vain(work_s: float) -> None:
    """48 places; 480 flows of 120 senders, each of which ends with the flows that it has."""
    chance, comeback = random.Random(1), Comeback()
    waiting = [(chance.random() / 2, sender, 0) for sender in range(120) for _ in range(4)]
    heapq.heapify(waiting)
    turn, inside, left_s = [0] * 120, [0] * 120, [work_s] * 120
    full: list[int] = []
    in_vain = served = 0
    for tick in range(6000):
        now_s = tick / 100
        for sender in [one for one in range(120) if inside[one]]:
            left_s[sender] -= inside[sender] / 100
            if left_s[sender] <= 0:
                for _ in range(inside[sender]):
                    comeback.serve(now_s)
                served += inside[sender]
                inside[sender], left_s[sender], turn[sender] = 0, work_s, turn[sender] + 1
                for _ in range(4):
                    heapq.heappush(waiting, (now_s + 0.05, sender, turn[sender]))
        while waiting[0][0] <= now_s:
            _, sender, its_turn = heapq.heappop(waiting)
            if its_turn != turn[sender]:
                continue
            if sum(inside) < 48:
                inside[sender] += 1
                continue
            in_vain += 1
            heapq.heappush(waiting, (now_s + spread_s(comeback.refuse(now_s), chance.random()), sender, its_turn))
        full.append(sum(inside))
    assert sum(full[2000:]) / len(full[2000:]) > 0.85 * 48
    assert in_vain - 432 < max(served, RETURNS_PER_S * 60)


def test_nobody_comes_earlier_than_told() -> None:
    assert [spread_s(10, draw) for draw in (0.0, 0.5)] == [10, 10.5]
    assert spread_s(1e9, 0.0) == PAUSE_S_MAX


def test_what_is_said_is_read() -> None:
    text = with_pause("node-1 has 48 flows that send", 6.2)
    assert text == "node-1 has 48 flows that send; try again in 7 s"
    assert from_code("busy", text).retry_after_s == 7.0
    assert from_code("full", text).retry_after_s == 0.0


@pytest.mark.parametrize("text", ["", "busy", "; try again in s", "; try again in -1 s", "; try again in 99999 s"])
def test_what_is_not_said_is_not_read(text: str) -> None:
    assert read_pause_s(text) == 0.0


def test_doors_refuse_with_the_time_and_keep_the_refused_as_a_stranger() -> None:
    turned_out: list[str] = []
    now_s = [0.0]
    doors = Doors(Lobby(2, 2), Places(1, 1), clock=lambda: now_s[0])
    first = doors.enter("10.0.0.1", lambda: turned_out.append("first"))
    first.admit("a")
    second = doors.enter("10.0.0.2", lambda: turned_out.append("second"))
    with pytest.raises(BusyError, match="; try again in 1 s") as refused:
        second.admit("b")
    assert (refused.value.retry_after_s, second.is_known, len(doors.lobby)) == (1.0, False, 1)
    for number in range(3):
        doors.enter("10.0.0.3", lambda number=number: turned_out.append(str(number)))  # type: ignore[misc]  # mypy takes no default of a lambda
    assert turned_out == ["second", "0"]
    first.rest()
    now_s[0] = REST_S
    third = doors.enter("10.0.0.4", lambda: turned_out.append("third"))
    third.admit("c")
    assert (turned_out[-1], third.is_known, len(doors.places)) == ("first", True, 1)
    third.leave()
    third.leave()
    assert len(doors.places) == 0


def test_only_who_was_served_leaves_a_free_place() -> None:
    now_s = [0.0]
    doors = Doors(Lobby(8, 8), Places(8, 8), clock=lambda: now_s[0])
    for number in range(10 * 20):
        now_s[0] = number / 20
        refused, *served = (doors.enter("10.0.0.1", lambda: None) for _ in range(3))
        for guest in (refused, *served):
            guest.admit("a")
        refused.refusal("there are 48 flows that send")
        for guest in (refused, *served):
            guest.leave()
    # One in vain for two served is too many, for three it would not be.
    assert Counter(doors.refusal("busy").retry_after_s for _ in range(3000))[40.0] == RETURNS_PER_S_MIN
