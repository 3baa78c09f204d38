"""A walk that knows runs of elements finds what a walk finds that knows none."""

import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.dicom.build import element, even, implicit
from transfer.dicom.runs import ELEMENTS_MAX, RUNS_MAX, SEEN_MAX, Wanted
from transfer.dicom.walk import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Walk
from transfer.errors import NotDicomError, TruncatedError

TAGS = {0x00080018, 0x00080060, 0x00100010, 0x0020000D, 0x00280010}
LAST = 0x00280010
NAMES = [0x00080000 + number for number in range(5, 0x70, 5)]
REST = [(0x00280010, "US", b"\1\0"), (0x00280011, "US", b"\1\0"), (0x7FE00010, "OW", b"\0\1")]


def data_set(names, *, order="<", form="explicit"):
    """One of `NAMES`, `TAGS` and two elements behind these."""
    texts = dict(zip(NAMES, names, strict=False))
    texts |= {0x00080018: names[-1], 0x00080060: names[0], 0x00100010: names[1], 0x0020000D: names[2]}
    each = [(tag, "LO", even(text)) for tag, text in sorted(texts.items())] + REST
    if form == "implicit":
        return b"".join(implicit(tag, value) for tag, _, value in each)
    return b"".join(element(tag, vr, value, order=order) for tag, vr, value in each)


def found(wanted, layout, data, *, until_passed):
    """Return all that a walk leaves behind."""
    walk = Walk(layout, wanted)
    error = None
    try:
        walk.feed(memoryview(data), until_passed=until_passed)
        walk.finish()
    except (NotDicomError, TruncatedError) as raised:
        error = type(raised)
    return walk.values, walk.passed, walk.last_group, walk.stopped_at, walk.layout, error


def names(text):
    return [f"{text}{number:02}" for number in range(24)]


def test_the_third_of_a_kind_is_known_and_gives_its_own_values():
    for until_passed in (True, False):
        wanted = Wanted(TAGS, LAST)
        for text in ("aa", "bb", "cc", "dd"):
            data = data_set(names(text))
            run = wanted.find((EXPLICIT_LITTLE, until_passed), memoryview(data), 0)
            assert (run is not None) == (text in {"cc", "dd"})
            values, passed, *_ = found(wanted, EXPLICIT_LITTLE, data, until_passed=until_passed)
            assert passed
            assert values[0x00080060] == f"{text}00".encode()
            assert values.keys() == TAGS
        assert run.elements == len(NAMES) + len(TAGS) + (0 if until_passed else 2)
        assert run.passed is not until_passed


def test_what_differs_in_one_header_is_another():
    wanted = Wanted(TAGS, LAST)
    data = data_set(names("aa"))
    for _ in range(3):
        found(wanted, EXPLICIT_LITTLE, data, until_passed=False)
    [run] = wanted._runs[EXPLICIT_LITTLE, False]
    at = 0
    while at < len(data):
        header = 12 if data[at + 4 : at + 6] == b"OW" else 8
        (length,) = struct.unpack_from("<L" if header == 12 else "<H", data, at + header - (4 if header == 12 else 2))
        for byte in range(at, at + header):
            changed = data[:byte] + bytes([data[byte] ^ 1]) + data[byte + 1 :]
            assert not run.is_at(memoryview(changed), 0)
        at += header + length
    assert run.is_at(memoryview(data), 0)
    assert not run.is_at(memoryview(data)[:-1], 0)
    assert run.is_at(memoryview(b"xyz" + data), 3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.text("ab", max_size=5), min_size=24, max_size=24),
            st.sampled_from(["explicit", "implicit", "big"]),
            st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=2),
            st.integers(0, 40),
            st.booleans(),
        ),
        min_size=2,
        max_size=6,
    )
)
@example([(names("aa"), "explicit", [], 0, False)] * 4)
@example([(names("aa"), "big", [], 0, True)] * 4)
@example([(names("aa"), "implicit", [], 12, False)] * 4)
def test_known_runs_change_nothing(files):
    wanted = Wanted(TAGS, LAST)
    layouts = {"explicit": EXPLICIT_LITTLE, "implicit": IMPLICIT_LITTLE, "big": EXPLICIT_BIG}
    for turn in range(3):  # so that each has been met before
        for texts, form, changes, cut, until_passed in files:
            data = bytearray(data_set(texts, order=">" if form == "big" else "<", form=form))
            for at, value in changes:
                data[at % len(data)] = value
            data = bytes(data[: len(data) - cut])
            new = found(Wanted(TAGS, LAST), layouts[form], data, until_passed=until_passed)
            assert found(wanted, layouts[form], data, until_passed=until_passed) == new, turn


def test_what_a_peer_sends_takes_little_memory():
    wanted = Wanted(TAGS, LAST)
    for length in range(2 * SEEN_MAX):
        data = element(0x00080018, "LO", bytes(2 * length)) + data_set(names("aa"))
        for _ in range(2):
            found(wanted, EXPLICIT_LITTLE, data, until_passed=False)
    assert len(wanted._runs[EXPLICIT_LITTLE, False]) == RUNS_MAX
    assert len(wanted._seen) <= SEEN_MAX
    many = b"".join(element(0x00080018, "LO") for _ in range(ELEMENTS_MAX + 1))
    for _ in range(3):
        found(wanted, EXPLICIT_BIG, many, until_passed=False)
        found(wanted, IMPLICIT_LITTLE, many, until_passed=False)
    assert [manner for manner in wanted._runs if manner != (EXPLICIT_LITTLE, False)] == []
