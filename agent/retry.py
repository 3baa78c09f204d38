"""When to try again, as pure functions: exponential back-off with full jitter, capped, for ever.

Full jitter (a uniform draw between nothing and the bound) keeps many agents from coming back in step after an
outage. Refuses to do: waiting, drawing random numbers, giving up.
"""

from typing import Final

from transfer.errors import ConflictError, FascicleError, NotStoredError

BASE_S: Final = 1.0
CAP_S: Final = 60.0
HOPELESS_S: Final = 300.0  # what needs a person (wrong certificate, wrong setting) is still tried, seldom


def bound_s(attempts: int, *, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return the longest wait after `attempts` failures in a row (1 is the first)."""
    return min(cap_s, base_s * 2.0 ** min(max(attempts - 1, 0), 60))


def back_off_s(attempts: int, draw: float, *, retryable: bool = True) -> float:
    """Return how long to wait; `draw` is uniform in [0, 1)."""
    if not retryable:
        return HOPELESS_S * (0.5 + draw / 2)
    return bound_s(attempts) * draw


def unusable_s(attempts: int, draw: float) -> float:
    """Return the wait for a file that could not be read: from a minute to a day, it may be a share that is away."""
    return bound_s(attempts, base_s=60.0, cap_s=86_400.0) * (0.5 + draw / 2)


def is_retryable(error: Exception) -> bool:
    """Tell whether the same step may succeed soon; what is not ours is a defect, and treated as passing once."""
    if is_over(error):
        return True
    return error.retryable if isinstance(error, FascicleError) else True


def is_over(error: Exception) -> bool:
    """Tell whether a transfer is over that the next attempt makes anew, and what is stored is not sent twice.

    The gateway does not know it any more, as after a rebuild, or does not agree about it, as when a receipt is missing.
    """
    return isinstance(error, NotStoredError | ConflictError)
