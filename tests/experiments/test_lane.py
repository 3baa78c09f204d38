"""The link's arithmetic, on a virtual clock: rate, delay, queue and loss, and that the order is kept."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.lane import Lane


def lane(*, rate_bit_s: float = 1e6, delay_s: float = 0.0, loss_ratio: float = 0.0, queue_bytes: int = 1 << 20) -> Lane:
    return Lane(rate_bit_s=rate_bit_s, delay_s=delay_s, loss_ratio=loss_ratio, queue_bytes=queue_bytes, seed=7)


def test_a_lone_packet_takes_its_length_and_the_delay() -> None:
    assert lane(delay_s=0.02).offer(5.0, 1236) == pytest.approx(5.0 + 1250 * 8 / 1e6 + 0.02)


def test_a_burst_leaves_at_the_link_rate() -> None:
    link = lane(rate_bit_s=100e6)
    times = [link.offer(0.0, 1500) for _ in range(500)]
    assert times[-1] == pytest.approx(500 * 1514 * 8 / 100e6)


def test_what_finds_the_queue_full_is_dropped_and_takes_no_room() -> None:
    link = lane(queue_bytes=10_500)
    times = [link.offer(0.0, 986) for _ in range(30)]
    assert [time >= 0 for time in times] == [True] * 11 + [False] * 19  # ten wait behind the one that is being sent
    assert (link.packets, link.dropped, link.lost) == (30, 19, 0)
    assert link.offer(0.008, 986) == pytest.approx(12 * 0.008)


def test_loss_is_as_asked_and_follows_from_the_seed() -> None:
    def lost() -> list[bool]:
        link = lane(rate_bit_s=0, loss_ratio=0.01)
        return [link.offer(0.0, 100) < 0 for _ in range(20_000)]

    assert lost() == lost()
    assert 140 <= sum(lost()) <= 260


def test_without_a_rate_there_is_only_the_delay() -> None:
    link = lane(rate_bit_s=0, delay_s=0.04)
    assert [link.offer(1.0, 1500) for _ in range(3)] == [1.04] * 3


@given(st.integers(0, 2**32), st.floats(1e3, 1e9), st.floats(0, 1), st.integers(0, 1 << 20))
def test_the_order_is_kept_and_the_rate_never_exceeded(seed: int, rate: float, delay: float, queue: int) -> None:
    draw = random.Random(seed)
    link = Lane(rate_bit_s=rate, delay_s=delay, loss_ratio=0.1, queue_bytes=queue, seed=seed)
    now, carried, out = 0.0, 0, []
    for _ in range(200):
        now += draw.random() * 1e-3
        size = draw.randrange(20, 1501)
        if (due := link.offer(now, size)) >= 0:
            out.append(due)
            carried += size + 14
            assert due >= now + delay
            assert carried * 8 / rate <= (due - delay) * (1 + 1e-9)
    assert out == sorted(out)
