"""The number of flows: converges near the best fixed number on every profile, stays there, and follows the link."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.link import ADSL, LAN, MSS, PROFILES, TANET, WAN, Link, Path, changed, controlled, fixed
from transfer.control.flows import Phase, State, advance, begin, first_flows
from transfer.control.readings import Limits, Reading, Sample

FIXED = (1, 2, 4, 8, 16, 24, 32, 48, 64)


def best_fixed(path: Path, kind: str, seconds: float = 15.0) -> float:
    return max(fixed(Link(path, seed=9, kind=kind), count, seconds=seconds, skip_s=5.0) for count in FIXED)


@pytest.mark.parametrize(
    ("name", "kind"), [("tanet", "cubic"), ("adsl", "cubic"), ("wan", "cubic"), ("tanet", "bbr"), ("wan", "bbr")]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_converges_within_five_percent_of_the_best_fixed_number(name: str, kind: str, seed: int) -> None:
    path = PROFILES[name]
    link = Link(path, seed=seed, kind=kind)
    first = controlled(link, seconds=10.0)
    settled = controlled(link, seconds=20.0, state=first.state)
    assert settled.goodput >= 0.95 * best_fixed(path, kind)


def test_a_long_way_begins_with_more_flows() -> None:
    round_trips_s = (0.0, 0.0004, 0.04, 0.06, 0.08, 0.6)
    assert [first_flows(rtt_s, loss_based=True) for rtt_s in round_trips_s] == [4, 4, 4, 9, 16, 16]
    assert [first_flows(rtt_s, loss_based=False) for rtt_s in round_trips_s] == [4] * 6


def test_a_lan_needs_few_flows() -> None:
    trace = controlled(Link(LAN), seconds=10.0)
    assert trace.goodput >= 0.99 * LAN.rate
    assert trace.state and trace.state.best <= 5


@pytest.mark.parametrize("seed", range(4))
def test_a_long_lossy_link_gets_many_flows_soon(seed: int) -> None:
    limits = Limits(first=first_flows(WAN.rtt_s, loss_based=True), loss_based=True)
    trace = controlled(Link(WAN, seed=seed), total_bytes=59e6, limits=limits)
    assert trace.seconds < 5.8  # the floor is 4.7 s; 64 flows from the start need 5.1 s
    assert max(flows for at_s, flows in trace.changes if at_s < 2.2) == 64


@pytest.mark.parametrize("seed", range(3))
def test_the_remembered_number_is_as_good_as_the_best_fixed_one(seed: int) -> None:
    first = controlled(Link(WAN, seed=seed), seconds=20.0)
    assert first.state
    limits = Limits(first=first.state.best, loss_based=True)
    again = controlled(Link(WAN, seed=seed + 10), total_bytes=59e6, limits=limits)
    assert again.seconds < 1.05 * min(_seconds(count) for count in (32, 48, 64))


def _seconds(count: int) -> float:
    link = Link(WAN, seed=3)
    link.set_flows(count)
    while link.delivered < 59e6:
        link.run(0.05)
    return link.now_s


@pytest.mark.parametrize("name", ["tanet", "adsl", "wan"])
def test_changes_become_rare(name: str) -> None:
    trace = controlled(Link(PROFILES[name], seed=4), seconds=120.0)
    assert len([at_s for at_s, _ in trace.changes if at_s > 60]) <= 6
    assert trace.goodput >= 0.9 * best_fixed(PROFILES[name], "cubic")


@pytest.mark.parametrize("seed", range(1, 5))
def test_beside_others_the_number_settles_and_they_keep_their_share_of_flows(seed: int) -> None:
    link = Link(TANET, seed=seed, cross=4)
    trace = controlled(link, seconds=120.0)
    assert trace.state
    assert trace.goodput >= 0.45 * TANET.rate  # four flows against four, and it may open more
    assert len([at_s for at_s, _ in trace.changes if at_s > 60]) <= 6
    assert link.others_delivered / 120 >= 0.9 * TANET.rate * 4 / (4 + trace.state.best)


def test_a_link_that_becomes_lossy_gets_more_flows() -> None:
    link = Link(changed(WAN, loss=0.0), seed=6)
    before = controlled(link, seconds=30.0)
    assert before.state and before.state.best <= 16
    link.path = WAN
    after = controlled(link, seconds=30.0, state=before.state)
    assert after.state and after.state.best >= 24
    assert controlled(link, seconds=10.0, state=after.state).goodput >= 0.7 * WAN.rate


def test_a_link_that_becomes_slow_needs_no_more() -> None:
    link = Link(TANET, seed=7)
    before = controlled(link, seconds=15.0)
    link.path = changed(TANET, rate=TANET.rate / 10)
    after = controlled(link, seconds=30.0, state=before.state)
    assert after.goodput >= 0.93 * link.path.rate
    assert after.state and after.state.best <= 12


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_starved_link_gets_no_flows(name: str) -> None:
    link = Link(PROFILES[name])
    link.cap = PROFILES[name].rate / 4
    trace = controlled(link, seconds=10.0, link_ratio=0.1)
    assert trace.changes == [(0.0, 4)]


def test_a_transfer_that_is_nearly_over_gets_no_flows() -> None:
    assert controlled(Link(changed(ADSL, rate=1e6)), total_bytes=1e6).changes == [(0.0, 4)]


def test_noise_alone_changes_little() -> None:
    state, limits = begin(Limits()), Limits()
    changes = 0
    for number in range(1200):
        noise = 1 + 0.1 * ((number * 7919) % 13 - 6) / 6
        was, state = state.flows, advance(state, sample(number * 0.1, 1e6 * noise, state.flows), limits)
        changes += state.flows != was
    assert changes <= 20
    assert state.flows <= 8


def sample(at_s: float, goodput_bytes_s: float, flows: int, *, retransmit_ratio: float = 0.0) -> Sample:
    return Sample(at_s, 0.1, goodput_bytes_s, retransmit_ratio, 0.01, 1.0, flows)


def test_a_remembered_number_is_kept_within_the_limits() -> None:
    assert begin(Limits(first=500)).flows == 64
    assert begin(Limits(first=0)).flows == 2


def test_flows_that_never_come_are_not_waited_for() -> None:
    state, limits = begin(Limits(first=8)), Limits(first=8)
    for number in range(100):
        state = advance(state, sample(number * 0.1, 1e6, 3), limits)
    assert state.base is not None and state.phase is Phase.HOLD


def test_a_queue_that_stands_from_the_first_sample_on_is_seen_by_the_least_round_trip() -> None:
    limits = Limits(loss_based=True)

    def grown(min_rtt_s: float) -> int:
        state = begin(limits)
        for number in range(1, 8):
            found = Sample(number * 0.1, 0.1, 1e6, 0.04, 0.2, 1.0, state.flows, min_rtt_s=min_rtt_s)
            state = advance(state, found, limits)
        return state.flows

    assert (grown(0.2), grown(0.04)) == (16, 4)


def test_a_reading_is_an_average() -> None:
    reading = Reading(4).plus(sample(0, 100.0, 4, retransmit_ratio=0.5)).plus(sample(0.1, 300.0, 4))
    assert reading.goodput_bytes_s == pytest.approx(200.0)
    assert reading.retransmit_ratio == pytest.approx(5 / 40)
    assert reading.rtt_s == pytest.approx(0.01)


samples = st.builds(
    Sample,
    at_s=st.just(0.0),
    span_s=st.floats(0.01, 2),
    goodput_bytes_s=st.floats(0, 1e10),
    retransmit_ratio=st.floats(0, 1),
    rtt_s=st.floats(0, 5),
    link_ratio=st.floats(0, 1),
    open_flows=st.integers(0, 100),
    remaining_bytes=st.none() | st.integers(0, 1 << 40),
    min_rtt_s=st.floats(0, 5),
)


@given(st.lists(samples, max_size=200), st.booleans())
def test_whatever_is_measured_the_number_stays_within_its_bounds(found: list[Sample], loss_based: bool) -> None:
    limits = Limits(first=5, least=2, most=20, loss_based=loss_based)
    state: State = begin(limits)
    at_s = 0.0
    for each in found:
        at_s += each.span_s
        state = advance(state, Sample(at_s, *list_of(each)[1:]), limits)
        assert 2 <= state.flows <= 20
        assert state.best >= 1


def list_of(each: Sample) -> list[float]:
    return [getattr(each, name) for name in Sample.__slots__]


def test_the_simulated_flow_is_held_down_by_loss_as_measured() -> None:
    """Measured on a kernel with CUBIC, 80 ms and 1 %: 0.2 to 0.3 MB/s a flow."""
    assert 0.15e6 < fixed(Link(WAN), 1, seconds=60, skip_s=10) < 0.35e6
    assert MSS == 1448
