"""Back-off: bounded, growing, never nothing for ever."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from agent.retry import CAP_S, HOPELESS_S, back_off_s, bound_s, is_retryable, unusable_s
from transfer.errors import ConflictError, FullError, NotStoredError, UnauthorisedError, UnreachableError

draws = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, sys.maxsize), draws)
def test_it_stays_between_nothing_and_the_cap(attempts: int, draw: float) -> None:
    assert 0 <= back_off_s(attempts, draw) <= bound_s(attempts) <= CAP_S


@given(st.integers(1, 10_000))
def test_the_bound_doubles_until_the_cap(attempts: int) -> None:
    assert bound_s(attempts + 1) == min(CAP_S, 2 * bound_s(attempts))


@given(st.integers(1, 100), draws)
def test_what_needs_a_person_is_tried_seldom(attempts: int, draw: float) -> None:
    assert HOPELESS_S / 2 <= back_off_s(attempts, draw, retryable=False) <= HOPELESS_S


@given(st.integers(1, sys.maxsize), draws)
def test_what_cannot_be_read_is_tried_within_a_day(attempts: int, draw: float) -> None:
    assert 30 <= unusable_s(attempts, draw) <= 86_400


def test_the_first_bounds() -> None:
    assert [bound_s(attempts) for attempts in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_errors_decide() -> None:
    assert is_retryable(UnreachableError("x"))
    assert is_retryable(FullError("x"))
    assert is_retryable(ZeroDivisionError())
    assert not is_retryable(UnauthorisedError("x"))


def test_a_transfer_that_the_gateway_forgot_is_opened_anew_soon() -> None:
    assert is_retryable(NotStoredError("no transfer is known here; open one"))
    assert is_retryable(ConflictError("it was abandoned"))
