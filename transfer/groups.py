"""Exception groups of nurseries, undone at the edges: callers handle one error of ours, not a tree of them."""

import contextlib
from collections.abc import Iterator

import trio

from transfer.errors import FascicleError


@contextlib.contextmanager
def first_error_only() -> Iterator[None]:
    """Raise the first FascicleError out of a group that holds nothing else; leave any other group alone.

    Of a group that also holds cancellations they alone are left: whoever cancels does not wait for an error, and the
    scope that takes them would leave the errors, in a group that nobody expects.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split(FascicleError)
        if ours is not None and others is not None and others.split(trio.Cancelled)[1] is None:
            raise others from None
        if ours is None or others is not None:
            raise
        raise first_error(ours) from group


def first_error(group: BaseExceptionGroup[FascicleError]) -> FascicleError:
    """Return the first error of a group, however deep."""
    first = group.exceptions[0]
    return first_error(first) if isinstance(first, BaseExceptionGroup) else first
