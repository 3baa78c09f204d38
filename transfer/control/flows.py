"""How many flows a transfer has: a hill climb on measured goodput, as a pure function from state and sample to state.

A step changes the number, waits until the flows have settled, measures, and compares with the number before.

    start  x4 at once, unmeasured, while a loss-based congestion control loses packets before an empty queue
    first  4, and more where the way is long; they are measured again until they no longer speed up
    ramp   x2 (x4 where a loss-based one sees loss and an empty queue) while that earns; then by a quarter
    trim   after growth that earned nothing: fewer, a quarter at a time, while that loses nothing
    hold   the best number; probes up and down in turn, more and more seldom while they earn nothing

Too few flows cost much and too many little, so growth must earn about 2 % a flow (at most 10 % a step) to be kept,
and a reduction must lose less than 2 %. While something else than the link binds, nothing changes. Refuses to do:
opening flows, reading clocks; what a flow is. The best number belongs into `transfer.control.path_memory`.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from transfer.control.readings import Limits, Reading, Sample

EARN_RATIO: Final = 0.02  # goodput that one more flow must earn
EARN_RATIO_MAX: Final = 0.10  # for a whole step: more than this is not left lying
LOSE_RATIO: Final = 0.02  # goodput that fewer flows may cost, with noise
PROPORTIONAL: Final = 0.5  # of the gain that n flows more would bring if the link were empty
LOSSY_RATIO: Final = 0.002  # retransmitted: a queue in front of the link does that only when it is full
QUEUE_RATIO: Final = 1.25  # round trip against the least: above, a queue stands in front of the link
FULL_RATIO: Final = 2.0  # BBR keeps about a quarter of a round trip, and probes with more
FULL_S: Final = 0.001  # below, round trips grow by the machine's own doing
CONGESTED_RATIO: Final = 0.05  # retransmitted, with a queue: flows push each other's packets out
LINK_RATIO_MIN: Final = 0.3  # of the flows' time: below, the link is not what binds
EVIDENCE_BYTES: Final = 2 * 1448  # retransmitted within one sample
FIRST: Final = 4
FIRST_MAX: Final = 16
FIRST_S: Final = 0.04  # round trip; above, a flow that loses a packet comes back as the square of it more slowly
FAR_S: Final = 0.03  # round trip; below, a flow recovers from a loss soon enough
SPEEDING_UP_RATIO: Final = 1.1  # from one reading to the next: the first flows are still on their way up
CHANGED_RATIO: Final = 0.35  # of goodput, and for so many samples: the link is another one
CHANGED_SAMPLES: Final = 4
SETTLE_S: Final = 0.15
MEASURE_S: Final = 0.35
STEP_S_MAX: Final = 1.0  # settling, and measuring: each no longer, however long the round trip
OPENING_S_MAX: Final = 3.0  # then a step is judged with the flows that have come
PAUSE_S: Final = 4.0
PAUSE_S_MAX: Final = 60.0
WORTH_S: Final = 1.0  # a transfer that ends sooner gains nothing by more flows


class Phase(Enum):
    """What the number of flows is doing."""

    RAMP = "ramp"
    CLIMB = "climb"
    TRIM = "trim"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class State:
    """Where the climb is. `flows` is the number wanted now; `base` the reading that a step is compared with."""

    flows: int
    phase: Phase = Phase.RAMP
    base: Reading | None = None
    now: Reading = field(default_factory=lambda: Reading(0))
    since_s: float | None = None  # when the step's flows were there; None: not yet
    asked_s: float | None = None
    rtt_s_min: float = float("inf")
    rtt_s_max: float = 0.0
    pause_s: float = PAUSE_S
    probe_at_s: float = 0.0
    probe_up: bool = True
    odd_samples: int = 0  # in a row, whose goodput is not what the base's was
    lossy: bool = False  # this path has lost packets though no queue stood: reductions are not tried in haste
    again: bool = False  # the step is measured a second time
    starting_bytes_s: float = 0.0  # goodput when the first flows were measured last, before there is a base

    @property
    def best(self) -> int:
        """Return the best number so far: what to remember for the path."""
        return self.base.flows if self.base else self.flows

    @property
    def best_goodput_bytes_s(self) -> float:
        """Return the goodput at the best number, 0.0 before the first reading."""
        return self.base.goodput_bytes_s if self.base else 0.0


def first_flows(rtt_s: float, *, loss_based: bool) -> int:
    """Return how many flows to begin with on a path of which only the round trip is known (0.0: not even that)."""
    return min(FIRST_MAX, round(FIRST * max(1.0, rtt_s / FIRST_S) ** 2)) if loss_based else FIRST


def begin(limits: Limits) -> State:
    """Return the state of a transfer that opens its first flows now."""
    return State(flows=min(max(limits.first, limits.least), limits.most))


def advance(state: State, sample: Sample, limits: Limits) -> State:
    """Take in one sample; `flows` of the result is the number wanted from now on."""
    if sample.rtt_s > 0:
        least_s = min(state.rtt_s_min, sample.rtt_s, sample.min_rtt_s or sample.rtt_s)
        state = replace(state, rtt_s_min=least_s, rtt_s_max=max(state.rtt_s_max, sample.rtt_s))
    if sample.link_ratio < LINK_RATIO_MIN:
        state = _abandon(state, sample)
    elif state.phase is Phase.HOLD:
        state = _hold(state, sample, limits)
    else:
        state = _measure(_settle(state, sample), sample, limits)
    return state if state.flows >= limits.least else replace(state, flows=limits.least)


def _measure(state: State, sample: Sample, limits: Limits) -> State:
    """Measure the step whose flows have come, and judge it when that is done."""
    if state.since_s is None:
        return state
    if limits.loss_based and state.base is None and state.flows < limits.most and _is_held_down(state, sample):
        return _step(replace(state, lossy=True), Phase.RAMP, min(state.flows * 4, limits.most))
    if sample.at_s - state.since_s < _settle_s(sample):
        return state
    reading = state.now.plus(sample)
    if reading.span_s < _measure_s(state, sample):
        return replace(state, now=reading)
    return _judge(replace(state, now=reading), sample, limits)


def _settle(state: State, sample: Sample) -> State:
    """Note when the flows that a step asked for have come."""
    if state.since_s is not None:
        return state
    asked_s = sample.at_s if state.asked_s is None else state.asked_s
    there = sample.open_flows == state.flows or sample.at_s - asked_s > OPENING_S_MAX
    return replace(
        state,
        asked_s=asked_s,
        since_s=sample.at_s if there else None,
        now=Reading(min(max(1, sample.open_flows), state.flows)),
    )


def _settle_s(sample: Sample) -> float:
    return min(max(SETTLE_S, 3 * sample.rtt_s), STEP_S_MAX)


def _measure_s(state: State, sample: Sample) -> float:
    """Return how long a step is measured: fine steps longer, because they judge by small differences."""
    factor = 1 if state.phase is Phase.RAMP else 2
    return factor * min(max(MEASURE_S, 5 * sample.rtt_s), STEP_S_MAX)


def _judge(state: State, sample: Sample, limits: Limits) -> State:
    """Compare the step with its base, and take the next one."""
    base, now = state.base, state.now
    state = replace(state, lossy=state.lossy or _is_lossy(state))
    if base is None and not (limits.loss_based and state.lossy) and _is_speeding_up(state):
        return replace(state, now=Reading(now.flows), starting_bytes_s=now.goodput_bytes_s)
    if base is None:
        return _grow(replace(state, base=now), sample, limits, proportional=True)
    if now.flows > base.flows:
        return _judge_growth(state, base, sample, limits)
    if now.flows < base.flows and _loses(now, base):
        return _rest(state, sample, base, changed=False)
    return _trim(state, _as_good_as(now, base), sample, limits)


def _judge_growth(state: State, base: Reading, sample: Sample, limits: Limits) -> State:
    now = state.now
    gain = now.goodput_bytes_s / max(base.goodput_bytes_s, 1.0) - 1
    added = now.flows - base.flows
    earned = gain >= min(EARN_RATIO * added, EARN_RATIO_MAX)
    if _is_crowded(state, now) and gain < 2 * EARN_RATIO_MAX:
        earned = False
    proportional = gain >= PROPORTIONAL * added / base.flows
    if earned and now.flows < limits.most:
        return _grow(replace(state, base=now), sample, limits, proportional=proportional)
    if earned:
        return _rest(state, sample, now, changed=True)
    if state.phase is not Phase.RAMP:
        return _rest(state, sample, base, changed=False)
    if not _loses(now, base):  # stay, and take off what is not needed: what the base had may be a moment long past
        state = replace(state, base=now)
        return _rest(state, sample, now, changed=True) if state.lossy else _trim(state, now, sample, limits)
    if not state.again:  # many flows that start at once can push each other's packets out, at first only
        return replace(state, now=Reading(now.flows), again=True)
    return _grow(state, sample, limits, proportional=False)


def _grow(state: State, sample: Sample, limits: Limits, *, proportional: bool) -> State:
    """Take the next step up from the base."""
    base = state.base or state.now
    if base.flows >= limits.most or not _is_worth_it(sample, base) or _is_full(state, state.now):
        return _rest(state, sample, base, changed=False)
    if not proportional:
        return _step(state, Phase.CLIMB, min(base.flows + _quarter(base.flows), limits.most))
    # Loss does not hold flows down whose congestion control looks at the link, such as BBR's.
    factor = 4 if limits.loss_based and _is_lossy(state) else 2
    return _step(state, Phase.RAMP, min(base.flows * factor, limits.most))


def _is_speeding_up(state: State) -> bool:
    """Tell whether the first flows are not yet as fast as they will be: the start of a flow takes many round trips."""
    return state.now.goodput_bytes_s > SPEEDING_UP_RATIO * state.starting_bytes_s


def _trim(state: State, base: Reading, sample: Sample, limits: Limits) -> State:
    """Take the next step down from `base`, or rest there."""
    fewer = max(limits.least, base.flows - _quarter(base.flows))
    if fewer >= base.flows or base.flows <= limits.first or _is_lossy(state):
        return _rest(state, sample, base, changed=False)
    return _step(replace(state, base=base), Phase.TRIM, fewer)


def _rest(state: State, sample: Sample, base: Reading, *, changed: bool) -> State:
    """Stay with the base; the next probe comes later the longer nothing has changed."""
    pause_s = PAUSE_S if changed else state.pause_s
    return replace(
        _step(state, Phase.HOLD, base.flows),
        base=base,
        pause_s=min(pause_s * 2, PAUSE_S_MAX),
        probe_at_s=sample.at_s + pause_s,
        odd_samples=0,
    )


def _hold(state: State, sample: Sample, limits: Limits) -> State:
    """Probe when it is time, or when the link has become another one."""
    base = state.base or state.now
    expected = base.goodput_bytes_s
    odd = abs(sample.goodput_bytes_s - expected) > CHANGED_RATIO * expected
    state = replace(state, odd_samples=state.odd_samples + 1 if odd else 0, now=_recent(state, sample))
    is_another = state.odd_samples * sample.span_s >= _measure_s(state, sample) and state.odd_samples >= CHANGED_SAMPLES
    if state.now.span_s < _measure_s(state, sample) or not (is_another or sample.at_s >= state.probe_at_s):
        return state
    state = replace(state, base=replace(state.now, flows=state.flows))
    if is_another:
        return _grow(replace(state, pause_s=PAUSE_S, lossy=False), sample, limits, proportional=True)
    return _probe(state, sample, limits)


def _probe(state: State, sample: Sample, limits: Limits) -> State:
    full = _is_full(state, state.now) or _is_crowded(state, state.now)
    up = state.probe_up and not full and state.flows < limits.most
    state = replace(state, probe_up=not up)
    if up and _is_worth_it(sample, state.now):
        return _step(state, Phase.CLIMB, min(state.flows + _quarter(state.flows), limits.most))
    fewer = max(limits.least, state.flows - _eighth(state.flows))
    if fewer < state.flows and not _is_lossy(state):
        return _step(state, Phase.TRIM, fewer)
    return _rest(state, sample, state.base or state.now, changed=False)


def _recent(state: State, sample: Sample) -> Reading:
    """Return the reading of about the last two seconds, which a probe is compared with."""
    now = state.now.plus(sample)
    if now.span_s <= 2 * STEP_S_MAX:
        return now
    keep = 2 * STEP_S_MAX / now.span_s
    return Reading(now.flows, now.span_s * keep, now.sent_bytes * keep, now.resent_bytes * keep, now.rtt_s2 * keep)


def _abandon(state: State, sample: Sample) -> State:
    """Stop what is being measured, since the link is not what binds; the number stays as it was last found good."""
    if state.phase is Phase.HOLD:
        return replace(state, now=Reading(state.flows), odd_samples=0)
    if state.base is None:
        return replace(state, now=Reading(state.flows), since_s=None, asked_s=None)
    return replace(_rest(state, sample, state.base, changed=False), pause_s=PAUSE_S)


def _step(state: State, phase: Phase, flows: int) -> State:
    return replace(state, phase=phase, flows=flows, now=Reading(flows), since_s=None, asked_s=None, again=False)


def _is_held_down(state: State, sample: Sample) -> bool:
    """Tell at the start, without measuring, that loss holds the flows down: no queue has ever stood before the link."""
    resent_bytes = sample.retransmit_ratio * sample.goodput_bytes_s * sample.span_s
    settled = state.since_s is not None and sample.at_s - state.since_s >= 2 * sample.rtt_s
    queued = state.rtt_s_max > QUEUE_RATIO * state.rtt_s_min
    far = state.rtt_s_min >= FAR_S and sample.retransmit_ratio <= CONGESTED_RATIO
    return settled and far and not queued and resent_bytes >= EVIDENCE_BYTES


def _is_lossy(state: State) -> bool:
    """Tell whether packets are lost though no queue stands: loss holds each flow down, however few there are."""
    return state.now.retransmit_ratio >= LOSSY_RATIO and state.now.rtt_s < QUEUE_RATIO * state.rtt_s_min


def _is_full(state: State, now: Reading) -> bool:
    """Tell whether a queue stands before the link all the time: then it is full, and more flows earn nothing."""
    return now.rtt_s > FULL_RATIO * state.rtt_s_min and now.rtt_s > state.rtt_s_min + FULL_S


def _is_crowded(state: State, now: Reading) -> bool:
    """Tell whether packets are lost in the queue before the link, so that fewer flows would do better."""
    return now.retransmit_ratio > CONGESTED_RATIO and now.rtt_s > QUEUE_RATIO * state.rtt_s_min


def _as_good_as(now: Reading, base: Reading) -> Reading:
    """Return the better goodput at the present number, so that losses of several steps down add up."""
    return replace(base, flows=now.flows) if base.goodput_bytes_s > now.goodput_bytes_s else now


def _loses(now: Reading, base: Reading) -> bool:
    return now.goodput_bytes_s < (1 - LOSE_RATIO) * base.goodput_bytes_s


def _is_worth_it(sample: Sample, base: Reading) -> bool:
    if sample.remaining_bytes is None:
        return True
    return sample.remaining_bytes > WORTH_S * base.goodput_bytes_s


def _quarter(flows: int) -> int:
    return max(1, flows // 4)


def _eighth(flows: int) -> int:
    return max(1, flows // 8)
