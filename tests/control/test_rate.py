"""A cap holds within a second on slow and fast links, whatever the sizes; no debt is forgotten, none kept too long."""

from hypothesis import given
from hypothesis import strategies as st

from transfer.control.rate import UNLIMITED, Bucket, bucket, burst_bytes, take, wait_s, with_rate


def asked(found: Bucket, size_bytes: int, now_s: float) -> tuple[Bucket, float]:
    """Take; return the bucket, and how long to wait."""
    found = take(found, size_bytes, now_s)
    return found, wait_s(found)


def test_a_burst_goes_at_once_and_then_the_rate_holds() -> None:
    found, waits_s = asked(bucket(250_000, 0.0), 25_000, 0.0)
    assert waits_s == 0.0
    found, waits_s = asked(found, 25_000, 0.0)
    assert waits_s == 0.1
    found, waits_s = asked(found, 50_000, 0.1)
    assert waits_s == 0.2
    found, waits_s = asked(found, 1_000, 60.0)
    assert (waits_s, found.tokens) == (0.0, 24_000)


def test_bursts_are_small_on_slow_links_and_bounded_on_fast_ones() -> None:
    assert burst_bytes(250_000) == 25_000  # 2 Mb/s
    assert burst_bytes(1_000) == 8 << 10
    assert burst_bytes(1e9) == burst_bytes(UNLIMITED) == 1 << 20
    assert burst_bytes(1e7, 0.01) == 100_000


def test_without_a_cap_nothing_waits() -> None:
    found = bucket(UNLIMITED, 0.0)
    for now_s in (0.0, 0.1):
        found, waits_s = asked(found, 1 << 30, now_s)
        assert waits_s == 0.0


def test_a_new_rate_counts_from_now_on_for_what_is_owed_too() -> None:
    found = with_rate(take(bucket(UNLIMITED, 0.0), 1 << 20, 0.0), 100_000, 1.0)
    owing = take(found, 110_000, 1.0)
    assert wait_s(owing) == 1.0
    assert wait_s(with_rate(owing, 100_000, 1.5)) == 0.5
    assert wait_s(with_rate(owing, 1_000_000, 1.5)) == 0.05
    assert wait_s(with_rate(owing, UNLIMITED, 1.5)) == 0.0


@given(st.floats(1e3, 1e8), st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 2)), min_size=1, max_size=60))
def test_no_more_than_rate_and_burst_ever_goes(rate: float, asks: list[tuple[int, float]]) -> None:
    found, now_s, sent = bucket(rate, 0.0), 0.0, 0
    for size_bytes, idle_s in asks:
        now_s += idle_s
        found, waits_s = asked(found, size_bytes, now_s)
        now_s += waits_s
        sent += size_bytes
        assert sent <= rate * now_s * (1 + 1e-6) + burst_bytes(rate) + 1
