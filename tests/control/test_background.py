"""The background rate takes an idle link, gives it to whoever else comes, and takes it back."""

import pytest

from tests.control.link import ADSL, TANET, Link, Path, changed
from transfer.control.background import BASE_S, TRICKLE_BYTES_S, Background, advance

PATHS = {"adsl": ADSL, "tanet": TANET, "far": Path(12.5e6, 0.080)}


def send(link: Link, state: Background, seconds: float, *, step_s: float = 0.1) -> tuple[Background, float, float]:
    """Send in the background; returns the state, and the goodputs of ours and of the others."""
    ours, theirs, ends_s = link.delivered, link.others_delivered, link.now_s + seconds
    link.set_flows(2)
    while link.now_s < ends_s:
        link.cap = state.rate_bytes_s
        before = link.delivered
        link.run(step_s)
        state = advance(
            state,
            rtt_s=link.rtt_s,
            goodput_bytes_s=(link.delivered - before) / step_s,
            now_s=link.now_s,
            span_s=step_s,
        )
    return state, (link.delivered - ours) / seconds, (link.others_delivered - theirs) / seconds


@pytest.mark.parametrize("name", sorted(PATHS))
def test_an_idle_link_is_used(name: str) -> None:
    link = Link(PATHS[name])
    state, _, _ = send(link, Background(), 20.0)
    _, ours, _ = send(link, state, 30.0)
    assert ours >= 0.8 * PATHS[name].rate


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_foreground_transfer_gets_nearly_all_and_leaves_it_back(name: str) -> None:
    path = PATHS[name]
    link = Link(path)
    state, _, _ = send(link, Background(), 20.0)
    link.others = Link(path, cross=1).others
    state, _, _ = send(link, state, 5.0)
    state, ours, theirs = send(link, state, 30.0)
    assert theirs >= 0.9 * path.rate
    assert ours <= 0.1 * path.rate
    link.others = []
    state, _, _ = send(link, state, 15.0)
    assert send(link, state, 20.0)[1] >= 0.8 * path.rate


def test_a_trickle_always_goes() -> None:
    state = Background(rate_bytes_s=1e6)
    state = advance(state, rtt_s=0.01, goodput_bytes_s=1e6, now_s=0.0, span_s=0.1)
    for step in range(100):
        state = advance(state, rtt_s=0.5, goodput_bytes_s=0.0, now_s=0.1 * step, span_s=0.1)
    assert state.rate_bytes_s == TRICKLE_BYTES_S


def test_a_path_that_is_longer_for_good_is_learnt_anew() -> None:
    link = Link(TANET)
    state, _, _ = send(link, Background(), 10.0)
    link.path = changed(TANET, rtt_s=0.1)
    state, _, _ = send(link, state, 2 * BASE_S + 20)
    assert send(link, state, 20.0)[1] >= 0.8 * TANET.rate


def test_the_rate_stays_near_what_really_goes() -> None:
    state = Background()
    for step in range(300):
        state = advance(state, rtt_s=0.01, goodput_bytes_s=1e5, now_s=0.1 * step, span_s=0.1)
    assert 1e5 <= state.rate_bytes_s <= 2e5
