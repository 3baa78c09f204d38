"""Whatever bytes come: an identity or one of our errors, the same in pieces as in one, soon."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dicom.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    explicit_image,
    file,
    implicit_image,
)
from tests.dicom.test_identity import FRAGMENTS, deflate, nested
from transfer.dicom import DataSetCheck, check_complete, read_identity
from transfer.errors import NotDicomError, TruncatedError
from transfer.objects import Identity

FILES = [
    file(explicit_image()[:-76] + nested(2) + nested(2, vr="UN") + FRAGMENTS),
    file(implicit_image(), IMPLICIT),
    file(explicit_image(">"), BIG),
    file(deflate(explicit_image()), DEFLATED),
]


def outcome(read, data):
    try:
        return read(data)
    except (NotDicomError, TruncatedError) as error:
        return type(error)


def in_pieces(data_set, syntax, sizes):
    check = DataSetCheck(syntax)
    view, at, turn = memoryview(data_set), 0, 0
    while at < len(view):
        size = sizes[turn % len(sizes)]
        check.feed(view[at : at + size])
        at, turn = at + size, turn + 1
    check.finish()
    return check.identity()


def test_each_byte_changed_to_what_hurts_most():
    for original in FILES:
        for at in range(132, len(original)):
            for value in (0x00, 0xFE, 0xFF):
                data = original[:at] + bytes([value]) + original[at + 1 :]
                for read in (read_identity, check_complete):
                    result = outcome(read, data)
                    assert isinstance(result, Identity) or result in (NotDicomError, TruncatedError)


@settings(max_examples=300, deadline=2000)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 3000),
)
def test_mutated_and_cut_files(original, changes, size):
    data = bytearray(original)
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new
    for read in (read_identity, check_complete):
        result = outcome(read, bytes(data[:size]))
        assert isinstance(result, Identity) or result in (NotDicomError, TruncatedError)


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=600), st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]))
def test_any_bytes_as_a_data_set(data, syntax):
    result = outcome(check_complete, file(data, syntax))
    assert isinstance(result, Identity) or result in (NotDicomError, TruncatedError)


@settings(max_examples=200, deadline=2000)
@given(
    st.sampled_from([(explicit_image()[:-76] + nested(3) + FRAGMENTS, EXPLICIT), (implicit_image(), IMPLICIT),
                     (explicit_image(">") + bytes(40), BIG), (deflate(explicit_image()), DEFLATED)]),
    st.lists(st.integers(1, 90), min_size=1, max_size=8),
    st.integers(0, 1),
)  # fmt: skip
def test_pieces_give_what_the_whole_gives(case, sizes, cut):
    data_set, syntax = case
    data_set = data_set[: len(data_set) - cut]
    whole = outcome(lambda data: in_pieces(data, syntax, [len(data)]), data_set)
    assert outcome(lambda data: in_pieces(data, syntax, sizes), data_set) == whole
    assert outcome(lambda data: in_pieces(data, syntax, [1]), data_set) == whole
    assert (whole is TruncatedError) == (bool(cut) and syntax != BIG)


def test_a_megabyte_of_empty_elements_takes_a_moment():
    began = time.perf_counter()
    check_complete(file(explicit_image()[:-76] + b"\x11\x7f\x10\x00UN\0\0\0\0\0\0" * 90_000 + explicit_image()[-76:]))
    assert time.perf_counter() - began < 5
