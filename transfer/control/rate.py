"""A bandwidth cap as a token bucket: how long to wait before so many bytes may go. Pure; time comes in as a number.

The burst is what the rate moves in a tenth of a second, at least 8 KiB: on a 2 Mb/s link a share of 25 KB, so that
a cap is even within a second and an urgent transfer waits little. A sender that yields has smaller ones: what goes at
once stands in the link's queue. All flows of a process share one bucket.
Refuses to do: sleeping, choosing the rate (`timetable`, `background`).
"""

from dataclasses import dataclass, replace
from typing import Final

UNLIMITED: Final = float("inf")
BURST_S: Final = 0.1
BURST_BYTES_MIN: Final = 8 << 10
BURST_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Bucket:
    """Bytes that may go at once, as of `at_s`; below zero: a debt that takes time to pay."""

    rate_bytes_s: float
    tokens: float
    at_s: float
    burst_s: float = BURST_S


def burst_bytes(rate_bytes_s: float, burst_s: float = BURST_S) -> int:
    """Return how much may go at once: also the best size of one share of a larger send."""
    return int(min(max(rate_bytes_s * burst_s, BURST_BYTES_MIN), BURST_BYTES_MAX))


def bucket(rate_bytes_s: float, now_s: float, burst_s: float = BURST_S) -> Bucket:
    """Return a full bucket."""
    return Bucket(rate_bytes_s, float(burst_bytes(rate_bytes_s, burst_s)), now_s, burst_s)


def with_rate(found: Bucket, rate_bytes_s: float, now_s: float) -> Bucket:
    """Return the bucket as of now, with another rate from then on; what was saved or owed stays, within the burst."""
    tokens = min(_filled(found, now_s), float(burst_bytes(rate_bytes_s, found.burst_s)))
    return replace(found, rate_bytes_s=rate_bytes_s, tokens=tokens, at_s=now_s)


def take(found: Bucket, size_bytes: int, now_s: float) -> Bucket:
    """Return the bucket without `size_bytes`, which may go when nothing is owed."""
    if found.rate_bytes_s == UNLIMITED:
        return replace(found, at_s=now_s)
    return replace(found, tokens=_filled(found, now_s) - size_bytes, at_s=now_s)


def wait_s(found: Bucket) -> float:
    """Return for how many seconds from `at_s` something is owed; less than a byte is a matter of rounding."""
    return -found.tokens / found.rate_bytes_s if found.tokens <= -1 else 0.0


def _filled(found: Bucket, now_s: float) -> float:
    earned = found.rate_bytes_s * max(0.0, now_s - found.at_s) if found.rate_bytes_s != UNLIMITED else UNLIMITED
    return min(found.tokens + earned, float(burst_bytes(found.rate_bytes_s, found.burst_s)))
