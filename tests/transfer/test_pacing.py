"""A transfer keeps to its cap, by whichever hour it is, and in the background gives way when a queue grows."""

import datetime

import pytest
import trio

from transfer import pacing
from transfer.control.timetable import Timetable, parse
from transfer.pacing import Pacer

MONDAY = datetime.datetime(2026, 11, 23, 12, 0)


async def send(pacer: Pacer, size_bytes: int, share_bytes: int) -> None:
    while size_bytes > 0:
        share_bytes = min(share_bytes, pacer.share_bytes() or share_bytes)
        await pacer.take(share_bytes)
        size_bytes -= share_bytes


async def test_flows_together_keep_to_the_cap(autojump_clock) -> None:
    pacer = Pacer(parse("8Mbit/s"), yields=False)
    started_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(send, pacer, 2_500_000, 1 << 20)
    assert trio.current_time() - started_s == pytest.approx(10.0, rel=0.05)


async def test_without_a_cap_nothing_waits(autojump_clock) -> None:
    pacer = Pacer(Timetable(), yields=False)
    assert not pacer.is_limited
    assert pacer.share_bytes() is None
    started_s = trio.current_time()
    await send(pacer, 1 << 30, 1 << 20)
    assert trio.current_time() == started_s


async def test_the_hour_changes_the_rate(autojump_clock, monkeypatch: pytest.MonkeyPatch) -> None:
    started_s = trio.current_time()
    monkeypatch.setattr(pacing, "now", lambda: MONDAY + datetime.timedelta(seconds=trio.current_time() - started_s))
    pacer = Pacer(parse("mon 12:00-12:01 800kbit/s, else 80Mbit/s"), yields=False)
    await send(pacer, 6_000_000, 1 << 16)
    assert trio.current_time() - started_s == pytest.approx(60.0, rel=0.03)
    await send(pacer, 100_000_000, 1 << 16)
    assert trio.current_time() - started_s == pytest.approx(70.0, rel=0.03)


async def test_a_higher_rate_is_for_those_who_wait_already(autojump_clock, monkeypatch: pytest.MonkeyPatch) -> None:
    started_s = trio.current_time()
    monkeypatch.setattr(pacing, "now", lambda: MONDAY + datetime.timedelta(seconds=trio.current_time() - started_s))
    pacer = Pacer(parse("mon 12:00-12:01 80kbit/s, else 80Mbit/s"), yields=False)
    await trio.sleep(55.0)
    await pacer.take(1 << 20)  # 100 s at the rate of the first minute
    assert 60 <= trio.current_time() - started_s < 60.3


async def test_who_came_first_goes_first(autojump_clock) -> None:
    pacer = Pacer(parse("8Mbit/s"), yields=False)
    went = []

    async def take(number: int, size_bytes: int) -> None:
        await trio.sleep(number / 1e6)
        await pacer.take(size_bytes)
        went.append(number)

    async with trio.open_nursery() as nursery:
        for number, size_bytes in enumerate((400_000, 1, 300_000, 1)):
            nursery.start_soon(take, number, size_bytes)
    assert went == [0, 1, 2, 3]


async def test_in_the_background_the_rate_falls_when_a_queue_grows_and_rises_again(autojump_clock) -> None:
    pacer = Pacer(Timetable(), yields=True)
    assert pacer.is_limited

    def observe(rtt_s: float, seconds: float, begin_s: float) -> float:
        for step in range(int(seconds / 0.1)):
            goodput = pacer.rate_bytes_s()
            pacer.observe(rtt_s=rtt_s, goodput_bytes_s=goodput, now_s=begin_s + step * 0.1, span_s=0.1)
        return pacer.rate_bytes_s()

    alone = observe(0.04, 5, 0.0)
    crowded = observe(0.2, 3, 5.0)
    after = observe(0.04, 30, 8.0)
    assert crowded < 0.05 * alone
    assert after > 10 * crowded
