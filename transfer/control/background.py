"""A rate that yields to other traffic: smaller as soon as a queue grows before the link (after LEDBAT, RFC 6817). Pure.

The round trip's growth over its least value is the delay that all traffic on the link makes. Background sending aims
at a small delay of its own: below the target its rate grows, faster the emptier the queue; above, it falls to a
fraction within a few round trips, to a trickle while others fill the queue. Works with every congestion control,
since it acts on the rate. Limits: others who never fill the queue are shared with, not yielded to; a path whose least
round trip rises for good is learnt anew after a minute (`BASE_S`), as in LEDBAT. Refuses to do: reading sockets.
"""

from dataclasses import dataclass, replace
from typing import Final

from transfer.control.rate import UNLIMITED

TARGET_S: Final = 0.010  # delay of our own making that does nobody harm
TARGET_RATIO: Final = 0.10  # of the least round trip, on long paths whose round trips vary
BASE_S: Final = 60.0  # the least round trip counts for so long, twice
GROW_RATIO: Final = 0.5  # a second, with an empty queue: after others have gone, half the link is back in seconds
START_RATIO: Final = 2.0  # a second, until a queue is seen first
SHRINK: Final = 0.7  # each step above the target
TRICKLE_BYTES_S: Final = 4096.0
START_BYTES_S: Final = 64 * 1024.0
HEADROOM: Final = 1.5  # over what really goes, so that the rate does not grow while something else binds


@dataclass(frozen=True, slots=True)
class Background:
    """The rate, and the least round trips of this minute and the last."""

    rate_bytes_s: float = START_BYTES_S
    rtt_s_min: float = UNLIMITED
    rtt_s_min_before: float = UNLIMITED
    turns_at_s: float = -1.0
    probing: bool = True  # no queue seen yet

    @property
    def base_rtt_s(self) -> float:
        """Return the least round trip known."""
        return min(self.rtt_s_min, self.rtt_s_min_before)


def advance(found: Background, *, rtt_s: float, goodput_bytes_s: float, now_s: float, span_s: float) -> Background:
    """Take in the round trip and the goodput of the last `span_s` seconds (suggested: 0.1, or two round trips)."""
    found = _learn(found, rtt_s, now_s)
    delay_s = max(0.0, rtt_s - found.base_rtt_s)
    target_s = max(TARGET_S, TARGET_RATIO * found.base_rtt_s)
    if delay_s > target_s:
        shrink = max(SHRINK, 1 - (delay_s - target_s) / target_s)
        return replace(found, rate_bytes_s=max(TRICKLE_BYTES_S, found.rate_bytes_s * shrink), probing=False)
    ratio = START_RATIO if found.probing else GROW_RATIO
    grown = found.rate_bytes_s * (1 + ratio * span_s * (1 - delay_s / target_s))
    bound = max(found.rate_bytes_s * 0.9, HEADROOM * goodput_bytes_s, START_BYTES_S)
    return replace(found, rate_bytes_s=min(grown, bound))


def _learn(found: Background, rtt_s: float, now_s: float) -> Background:
    if now_s < found.turns_at_s:
        return replace(found, rtt_s_min=min(found.rtt_s_min, rtt_s))
    return replace(found, rtt_s_min=rtt_s, rtt_s_min_before=found.rtt_s_min, turns_at_s=now_s + BASE_S)
