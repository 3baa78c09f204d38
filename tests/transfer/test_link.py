"""The estimate of the link: only what waits for it says how fast it is."""

import pytest

from transfer.link import LEAST_BYTES_S, MOST_BYTES_S, NEAR_BYTES_S, UNKNOWN_BYTES_S, Link


def take(link: Link, rates: list[float], *, is_full: bool) -> float:
    for rate in rates:
        link.take(rate, is_full=is_full)
    return link.bytes_s


def test_the_first_measure_of_a_full_link_counts_whole() -> None:
    link = Link()
    assert not link.is_known
    assert take(link, [230e3, 225e3], is_full=True) == pytest.approx(230e3, rel=0.02)
    assert link.is_known


def test_flows_that_are_still_speeding_up_do_not_say_that_the_link_is_slow() -> None:
    link = Link()
    assert take(link, [0.1e6, 0.4e6, 1.6e6], is_full=True) == UNKNOWN_BYTES_S
    assert take(link, [6.4e6], is_full=True) == 6.4e6


def test_a_link_that_nothing_waits_for_could_take_more() -> None:
    link = Link(10e6)
    assert take(link, [8e6] * 3, is_full=False) == pytest.approx(10e6 * 1.5**3)
    assert take(link, [8e6] * 40, is_full=False) <= 80e6 * 1.5


def test_a_pause_says_nothing() -> None:
    link = Link(10e6)
    assert take(link, [0.0, 0.2e6, 0.0], is_full=False) == 10e6


def test_a_known_link_is_followed_smoothly() -> None:
    link = Link(10e6)
    assert take(link, [20e6], is_full=True) == pytest.approx(13e6)
    assert take(link, [20e6] * 20, is_full=True) == pytest.approx(20e6, rel=0.01)
    assert take(link, [1e6] * 20, is_full=True) == pytest.approx(1e6, rel=0.02)


def test_nothing_at_all_on_a_full_link_is_not_taken_for_a_rate_of_zero() -> None:
    assert take(Link(), [0.0, 0.0], is_full=True) >= LEAST_BYTES_S > 0
    assert take(Link(10e6), [0.0] * 200, is_full=True) >= LEAST_BYTES_S


def test_the_estimate_is_bounded() -> None:
    assert take(Link(), [1e12], is_full=False) == MOST_BYTES_S


def test_a_near_gateway_says_that_the_link_is_fast_until_it_is_measured() -> None:
    link = Link()
    link.hint(0.0002)
    assert link.is_known
    assert link.bytes_s == NEAR_BYTES_S
    assert take(link, [1e6, 1.1e6, 1.05e6], is_full=True) == pytest.approx(1.1e6, rel=0.05)


@pytest.mark.parametrize("rtt_s", [0.0, 0.001, 0.04])
def test_a_far_gateway_says_nothing(rtt_s: float) -> None:
    link = Link()
    link.hint(rtt_s)
    assert (link.bytes_s, link.is_known) == (UNKNOWN_BYTES_S, False)


def test_what_is_remembered_counts_more_than_how_near_the_gateway_is() -> None:
    link = Link(3e6)
    link.hint(0.0002)
    assert link.bytes_s == 3e6


def test_a_link_that_seldom_has_anything_waiting_is_idle() -> None:
    link = Link()
    for number in range(40):
        link.take(40e6, is_full=number % 4 == 0)
    assert link.is_idle
    take(link, [110e6] * 5, is_full=True)
    assert link.is_idle  # not yet: bursts are no proof
    take(link, [110e6] * 20, is_full=True)
    assert not link.is_idle


def test_a_link_that_binds_is_not_idle_for_a_few_samples_at_the_start_or_between() -> None:
    link = Link()
    take(link, [50e6] * 4, is_full=False)
    assert not link.is_idle
    for number in range(100):
        link.take(115e6, is_full=number % 10 != 9)
        assert not link.is_idle


def test_what_trickles_does_not_make_a_slow_link_idle() -> None:
    link = Link()
    take(link, [100e3] * 100, is_full=False)
    assert not link.is_idle
