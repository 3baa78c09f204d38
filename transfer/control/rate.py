"""A bandwidth cap as a token bucket: how long to wait before so many bytes may go. Pure; time comes in as a number.

The burst is what the rate moves in a tenth of a second, at least 8 KiB: on a 2 Mb/s link a share of 25 KB, so that
a cap is even within a second and an urgent transfer waits little. All flows of a process share one bucket.
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


def burst_bytes(rate_bytes_s: float) -> int:
    """Return how much may go at once: also the best size of one share of a larger send."""
    return int(min(max(rate_bytes_s * BURST_S, BURST_BYTES_MIN), BURST_BYTES_MAX))


def bucket(rate_bytes_s: float, now_s: float) -> Bucket:
    """Return a full bucket."""
    return Bucket(rate_bytes_s, float(burst_bytes(rate_bytes_s)), now_s)


def with_rate(found: Bucket, rate_bytes_s: float, now_s: float) -> Bucket:
    """Return the bucket with another rate from now on; what was saved or owed stays, within the new burst."""
    if rate_bytes_s == found.rate_bytes_s:
        return found
    tokens = min(_filled(found, now_s).tokens, float(burst_bytes(rate_bytes_s)))
    return Bucket(rate_bytes_s, 0.0 if tokens == UNLIMITED else tokens, now_s)


def take(found: Bucket, size_bytes: int, now_s: float) -> tuple[Bucket, float]:
    """Take `size_bytes`; returns the bucket after it, and for how many seconds to wait before they go.

    Who takes must send: the order of taking is the order of going, so that no flow starves.
    """
    if found.rate_bytes_s == UNLIMITED:
        return replace(found, at_s=now_s), 0.0
    filled = _filled(found, now_s)
    left = filled.tokens - size_bytes
    return replace(filled, tokens=left), max(0.0, -left / filled.rate_bytes_s)


def _filled(found: Bucket, now_s: float) -> Bucket:
    earned = found.rate_bytes_s * max(0.0, now_s - found.at_s) if found.rate_bytes_s != UNLIMITED else UNLIMITED
    return replace(found, tokens=min(found.tokens + earned, float(burst_bytes(found.rate_bytes_s))), at_s=now_s)
