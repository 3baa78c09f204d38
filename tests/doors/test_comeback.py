"""When a crowd is told to come back: soon when it is small, later when it is large, never all at once."""

import heapq
import random
from collections import Counter

import pytest

from transfer.comeback import PAUSE_S_MAX, RETURNS_PER_S, Comeback, read_pause_s, spread_s, with_pause
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
    comeback = Comeback()
    returns_s = [chance.random() for _ in range(crowd)]
    heapq.heapify(returns_s)
    came = [0] * 200
    while (now_s := returns_s[0]) < 200:
        came[int(now_s)] += 1
        heapq.heapreplace(returns_s, now_s + spread_s(comeback.refuse(now_s), chance.random()))
    assert sum(came[100:]) / 100 == pytest.approx(RETURNS_PER_S, rel=0.1)
    assert 0 < min(came[100:]) <= max(came[100:]) < 3 * RETURNS_PER_S


def returns_in_a_second(comeback: Comeback, now_s: float) -> int:
    """Turn 3000 away at once; return how many are told to come back after 3 to 4 s."""
    return Counter(comeback.refuse(now_s) for _ in range(3000))[3.0]


@pytest.mark.parametrize("freed_per_s", [1, 19, 80, 400])
def test_as_many_come_back_as_places_become_free_and_a_quarter_more(freed_per_s: int) -> None:
    comeback = Comeback()
    for number in range(30 * freed_per_s):
        comeback.free(number / freed_per_s)
    assert returns_in_a_second(comeback, 30.0) == pytest.approx(max(RETURNS_PER_S, 1.25 * freed_per_s), rel=0.05, abs=1)
    assert returns_in_a_second(comeback, 600.0) == RETURNS_PER_S  # what was fast ten minutes ago


def test_a_clock_that_stands_still_or_goes_back_breaks_nothing() -> None:
    comeback = Comeback()
    for now_s in (5.0, 5.0, 4.0):
        comeback.free(now_s)
        assert PAUSE_S_MAX >= comeback.refuse(now_s) >= 1.0


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
    for number in range(30 * 24):
        now_s[0] = number / 24
        served, refused = (doors.enter("10.0.0.1", lambda: None) for _ in range(2))
        served.admit("a")
        refused.admit("a")
        refused.refusal("there are 48 flows that send")
        served.leave()
        refused.leave()
    pauses_s = Counter(doors.refusal("busy").retry_after_s for _ in range(3000))
    assert pauses_s[3.0] == pytest.approx(1.25 * 24, rel=0.05, abs=1)
