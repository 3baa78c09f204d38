"""What comes out of a nursery whose tasks failed, were cancelled, or both."""

import pytest
import trio
import trio.testing

from transfer.errors import CorruptError, UnreachableError
from transfer.groups import first_error_only


async def fail(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def test_the_first_error_comes_alone() -> None:
    with pytest.raises(UnreachableError, match="gone"), first_error_only():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, UnreachableError("gone"))
            nursery.start_soon(trio.sleep_forever)


async def test_a_group_with_a_foreign_error_stays() -> None:
    with pytest.RaisesGroup(UnreachableError, KeyError), first_error_only():
        raise BaseExceptionGroup("both", [UnreachableError("gone"), KeyError("x")])


async def test_an_error_while_being_cancelled_is_no_error() -> None:
    """Else the scope that takes the cancellations leaves a group of errors that no `except` expects."""

    async def slow_to_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            scope.cancel()
            await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        with first_error_only():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow_to_end)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(fail, CorruptError("bad"))
        raise AssertionError("not reached: it was cancelled")
    assert scope.cancelled_caught
