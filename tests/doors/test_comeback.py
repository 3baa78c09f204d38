"""When a crowd is told to come back: soon when it is small, later when it is large, never all at once."""

import random

import pytest

from transfer.comeback import PAUSE_S_MAX, RETURNS_PER_S, Comeback, read_pause_s, spread_s, with_pause
from transfer.doors import Doors
from transfer.errors import BusyError, from_code
from transfer.lobby import Lobby
from transfer.places import Places


def test_one_who_was_turned_away_comes_back_at_once() -> None:
    assert [Comeback().refuse(100.0), Comeback().refuse(0.0)] == [1.0, 1.0]


@pytest.mark.parametrize(("crowd", "pause_s"), [(10, 1), (432, 22), (1000, 50), (100_000, PAUSE_S_MAX)])
def test_a_crowd_is_spread_so_that_few_come_in_a_second(crowd: int, pause_s: float) -> None:
    comeback = Comeback()
    said_s = [comeback.refuse(index * 1e-6) for index in range(crowd)][-1]
    assert said_s == pytest.approx(pause_s, abs=1)


@pytest.mark.parametrize("crowd", [50, 400])
def test_the_crowd_settles(crowd: int) -> None:
    chance = random.Random(crowd)
    comeback = Comeback()
    returns_s = [chance.random() for _ in range(crowd)]
    came = 0
    for _ in range(20_000):
        now_s = min(returns_s)
        if now_s > 300:
            break
        came += now_s > 100
        returns_s[returns_s.index(now_s)] = now_s + spread_s(comeback.refuse(now_s), chance.random())
    assert 0.4 * RETURNS_PER_S < came / 200 < 1.5 * RETURNS_PER_S


def test_a_crowd_that_has_gone_is_forgotten() -> None:
    comeback = Comeback()
    for _ in range(400):
        comeback.refuse(0.0)
    assert comeback.refuse(1000.0) == 1.0


def test_nobody_comes_earlier_than_told() -> None:
    assert [spread_s(10, draw) for draw in (0.0, 0.5, 0.999)] == pytest.approx([10, 12.5, 15], abs=0.01)
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
    doors = Doors(Lobby(2, 2), Places(1, 1), clock=lambda: 0.0)
    first = doors.enter("10.0.0.1", lambda: turned_out.append("first"))
    first.admit("a")
    second = doors.enter("10.0.0.2", lambda: turned_out.append("second"))
    with pytest.raises(BusyError, match="; try again in 1 s") as refused:
        second.admit("b")
    assert (refused.value.retry_after_s, second.is_known, len(doors.lobby)) == (1.0, False, 1)
    for number in range(3):
        doors.enter("10.0.0.3", lambda number=number: turned_out.append(str(number)))  # type: ignore[misc]
    assert turned_out == ["second", "0"]
    first.rest()
    third = doors.enter("10.0.0.4", lambda: turned_out.append("third"))
    third.admit("c")
    assert (turned_out[-1], third.is_known, len(doors.places)) == ("first", True, 1)
    third.leave()
    third.leave()
    assert len(doors.places) == 0
