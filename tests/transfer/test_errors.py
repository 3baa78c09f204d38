"""The tree of errors: one code a class, and a code is enough to raise the same class at the other end."""

from collections.abc import Iterator

import pytest

from transfer import errors
from transfer.errors import FascicleError, from_code


def tree(root: type[FascicleError]) -> Iterator[type[FascicleError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ALL = [kind for kind in tree(FascicleError) if kind.__module__ == "transfer.errors"]


def test_codes_are_unique() -> None:
    codes = [kind.__dict__["code"] for kind in ALL]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("kind", ALL)
def test_a_code_brings_its_class_back(kind: type[FascicleError]) -> None:
    error = from_code(kind("what happened").code, "what happened")
    assert type(error) is kind
    assert (error.message, str(error)) == ("what happened", "what happened")


def test_an_unknown_code_is_the_root() -> None:
    assert type(from_code("from the future", "x")) is FascicleError


@pytest.mark.parametrize("kind", ALL)
def test_attributes_are_within_their_standards(kind: type[FascicleError]) -> None:
    assert kind.exit_code in (1, 2, 3)
    assert 400 <= kind.http_status < 600
    assert 0 < kind.dimse_status <= 0xFFFF
    assert len(kind.code) <= 32  # a REFUSED frame's field


def test_what_callers_decide_by() -> None:
    table = {
        errors.SettingsError: (2, False),
        errors.UnauthorisedError: (2, False),
        errors.NotDicomError: (1, False),
        errors.CorruptError: (1, True),
        errors.FullError: (1, True),
        errors.BusyError: (1, True),
        errors.UnreachableError: (3, True),
        errors.StorageError: (1, True),
    }
    assert {kind: (kind.exit_code, kind.retryable) for kind in table} == table
    assert (errors.FullError.dimse_status, errors.NotStoredError.http_status) == (0xA700, 404)
