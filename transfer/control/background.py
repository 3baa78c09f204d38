"""A rate that yields to other traffic: smaller as soon as a queue grows before the link (after LEDBAT, RFC 6817). Pure.

The round trip's growth over its least value is the delay that all traffic on the link makes. Background sending aims
at a small delay of its own: below the target its rate grows, faster the emptier the queue; above, it falls, to a
trickle while others fill the queue. A first fall is to a little below what went, since alone on the link a queue is its
own; what that did is waited for, and only then it falls to a half, and again. Works with every congestion control,
since it acts on the rate. Limits: others who never fill the queue are shared with, not yielded to; a path whose least
round trip rises for good is learnt anew after a minute (`BASE_S`), as in LEDBAT. Refuses to do: reading sockets.
"""

from dataclasses import dataclass, replace
from typing import Final

from transfer.control.rate import UNLIMITED

TARGET_S: Final = 0.010  # delay of our own making that does nobody harm
TARGET_RATIO: Final = 0.10  # of the least round trip, on long paths whose round trips vary
BASE_S: Final = 60.0  # the least round trip counts for so long, twice
GROW_RATIO: Final = 1.0  # a second, with an empty queue: after others have gone, the link is back in seconds
START_RATIO: Final = 2.0  # a second, until a queue is seen first
FIRST_FALL: Final = 0.85  # of what really goes: the rest drains a queue of our own
FALL: Final = 0.5  # each time after that, while the queue stays
HOLD_S: Final = 0.2  # after a fall; the kernel's round trip is a mean, and shows late what a fall did
HOLD_ROUND_TRIPS: Final = 2
TRICKLE_BYTES_S: Final = 4096.0
START_BYTES_S: Final = 64 * 1024.0
BURST_S: Final = 0.005  # of the rate: what goes at once is a delay of our own, too
HEADROOM: Final = 1.5  # over what really goes, so that the rate does not grow while something else binds


@dataclass(frozen=True, slots=True)
class Background:
    """The rate, the least round trips of this minute and the last, and the falls without a rise between them."""

    rate_bytes_s: float = START_BYTES_S
    rtt_s_min: float = UNLIMITED
    rtt_s_min_before: float = UNLIMITED
    turns_at_s: float = -1.0
    probing: bool = True  # no queue seen yet
    falls: int = 0
    holds_until_s: float = 0.0

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
        return _fall(found, rtt_s, goodput_bytes_s, now_s)
    ratio = START_RATIO if found.probing else GROW_RATIO
    grown = found.rate_bytes_s * (1 + ratio * span_s * (1 - delay_s / target_s))
    bound = max(found.rate_bytes_s * 0.9, HEADROOM * goodput_bytes_s, START_BYTES_S)
    return replace(found, rate_bytes_s=min(grown, bound), falls=0)


def _fall(found: Background, rtt_s: float, goodput_bytes_s: float, now_s: float) -> Background:
    if now_s < found.holds_until_s:
        return found
    rate = FALL * found.rate_bytes_s
    if not found.falls:
        rate = min(found.rate_bytes_s, max(rate, FIRST_FALL * goodput_bytes_s))
    return replace(
        found,
        rate_bytes_s=max(TRICKLE_BYTES_S, rate),
        probing=False,
        falls=found.falls + 1,
        holds_until_s=now_s + max(HOLD_S, HOLD_ROUND_TRIPS * rtt_s),
    )


def _learn(found: Background, rtt_s: float, now_s: float) -> Background:
    if now_s < found.turns_at_s:
        return replace(found, rtt_s_min=min(found.rtt_s_min, rtt_s))
    return replace(found, rtt_s_min=rtt_s, rtt_s_min_before=found.rtt_s_min, turns_at_s=now_s + BASE_S)
