"""Names: every byte of every file name survives, and none leads out of the folder it is put under."""

import os
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer import names
from transfer.api import Name
from transfer.errors import ProtocolError

byte = st.integers(1, 255).filter(lambda value: value != ord("/"))
component = st.lists(byte, min_size=1, max_size=255).map(bytes).filter(lambda part: part not in (b".", b".."))
relative = st.lists(component, min_size=1, max_size=10).map(b"/".join)


@given(relative)
def test_every_byte_of_a_path_survives(raw: bytes) -> None:
    name = names.from_path(PurePath(os.fsdecode(raw)))
    assert name.isascii()
    assert name.isprintable()
    assert " " not in name
    assert os.fsencode(names.to_path(name)) == raw
    names.check(name)


def test_names_read_well_and_the_rest_is_escaped() -> None:
    path = PurePath(os.fsdecode(b"CT 1/a~b-c_d.dcm/M\xfcller\n%2e%2e"))
    assert names.from_path(path) == "CT%201/a~b-c_d.dcm/M%FCller%0A%252e%252e"


def test_the_longest_path_fits_the_api() -> None:
    raw = b"/".join([b"\xff" * 255] * 15)
    name = names.from_path(PurePath(os.fsdecode(raw)))
    (limit,) = (meta.max_length for meta in Name.__metadata__)
    assert len(name) == 15 * 255 * 3 + 14 <= limit
    assert os.fsencode(names.to_path(name)) == raw
    assert limit >= names.PATH_BYTES_MAX * 3


ESCAPES = [
    "..",
    ".",
    "/",
    "/etc/passwd",
    "../../etc/passwd",
    "a/../../b",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "%2e%2e/x",
    "%2E%2E%2Fx",
    "a%2f..%2fb",
    "%2fetc",
    "a%2F%2Fb",
    "a%00b",
    "\0",
    "x" * 256,
    "%ff" * 256,
    "/".join(["a"] * 257),
    "/".join(["a" * 255] * 17),
]


@pytest.mark.parametrize("name", ESCAPES)
def test_what_is_no_plain_relative_path_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        names.to_path(name)
    with pytest.raises(ProtocolError):
        names.check(name)


def test_what_is_too_deep_or_long_goes_without_a_name() -> None:
    assert names.usable(PurePath("a b/c")) == "a%20b/c"
    assert names.usable(PurePath("/".join(["a"] * 257))) == ""
    assert names.usable(PurePath("字" * 86)) == ""  # as shares of other systems may have


def test_no_name_is_no_path_but_may_be_sent() -> None:
    names.check("")
    with pytest.raises(ProtocolError):
        names.to_path("")


@given(st.text(alphabet="./%2eEfF0a\\~\0é", max_size=30))
def test_whatever_is_taken_stays_below_its_folder(name: str) -> None:
    try:
        path = names.to_path(name)
    except ProtocolError:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    joined = os.path.normpath(os.path.join("/folder", path))
    assert joined.startswith("/folder/")
    assert os.fsencode(names.to_path(names.from_path(path))) == os.fsencode(path)
