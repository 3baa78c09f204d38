import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.errors import ProtocolError
from transfer.protocol.etf import HEAD_BYTES_MAX, NAME_CHARACTERS_MAX, Head, encode_answer, parse_head

# What Erlang/OTP 25's term_to_binary([Name | <<1,2>>]) gives; the atoms of OTP 26 as its documentation has them.
TERMS = {
    '"a.dcm"': ("a.dcm", bytes([107, 0, 5]) + b"a.dcm"),
    '""': ("", bytes([106])),
    "[1234, 97]": ("\u04d2a", bytes([108, 0, 0, 0, 2, 98, 0, 0, 4, 210, 97, 97, 106])),
    '<<"x">>': ("x", bytes([109, 0, 0, 0, 1]) + b"x"),
    "abc (OTP 25)": ("abc", bytes([100, 0, 3]) + b"abc"),
    "abc (small)": ("abc", bytes([115, 3]) + b"abc"),
    "abc (OTP 26)": ("abc", bytes([119, 3]) + b"abc"),
    "abc (UTF-8)": ("\u00e4", bytes([118, 0, 2]) + "\u00e4".encode()),
    "latin-1": ("\u00e4/../..", bytes([107, 0, 7]) + b"\xe4/../.."),
    "not UTF-8": ("\\xff", bytes([109, 0, 0, 0, 1, 255])),
}


def message(term: bytes, data: bytes = b"\1\2") -> bytes:
    return bytes([131, 108, 0, 0, 0, 1]) + term + bytes([109]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("name", TERMS)
def test_each_form_of_name_is_read_and_answered_as_it_came(name):
    text, term = TERMS[name]
    frame = message(term)
    head = parse_head(frame, len(frame))
    assert head == Head(text, term, len(frame) - 2, 2)
    assert encode_answer(head) == (1 + len(term)).to_bytes(4, "big") + b"\x83" + term


@pytest.mark.parametrize("name", TERMS)
def test_a_head_that_comes_byte_by_byte_needs_more_until_it_is_whole(name):
    frame = message(TERMS[name][1], b"0123456789")
    for length in range(len(frame) - 10):
        assert parse_head(frame[:length], len(frame)) is None
    whole = parse_head(frame, len(frame))
    assert all(parse_head(frame[:length], len(frame)) == whole for length in range(len(frame) - 10, len(frame)))


def test_no_bytes_are_bytes_too():
    frame = message(TERMS['"a.dcm"'][1], b"")
    assert parse_head(frame, len(frame)).size_bytes == 0


LONG = NAME_CHARACTERS_MAX + 1
REFUSED = {
    "nothing": b"",
    "another version": b"\x82" + message(TERMS['""'][1])[1:],
    "compressed": bytes([131, 80, 0, 0, 0, 9, 120]),
    "a proper list": bytes([131, 108, 0, 0, 0, 1, 107, 0, 1, 97, 106]),
    "two elements": bytes([131, 108, 0, 0, 0, 2, 106, 106, 109, 0, 0, 0, 0]),
    "a tuple": bytes([131, 104, 2, 106, 109, 0, 0, 0, 0]),
    "a name that is a float": message(bytes([70]) + bytes(8)),
    "a name that is a list of lists": message(bytes([108, 0, 0, 0, 1, 106, 106])),
    "a name with a negative number": message(bytes([108, 0, 0, 0, 1, 98, 255, 255, 255, 255, 106])),
    "a name with a surrogate": message(bytes([108, 0, 0, 0, 1, 98, 0, 0, 0xD8, 0, 106])),
    "an improper name": message(bytes([108, 0, 0, 0, 1, 97, 97, 97])),
    "a long string": message(bytes([107]) + LONG.to_bytes(2, "big") + bytes(LONG)),
    "a long binary": message(bytes([109, 255, 255, 255, 255])),
    "a long list": message(bytes([108, 255, 255, 255, 255])),
    "a binary beyond the frame": message(TERMS['""'][1])[:-6] + b"\xff\xff\xff\xff\1\2",
    "a binary that ends early": message(TERMS['""'][1]) + b"\0",
    "an end inside the head": message(TERMS['"a.dcm"'][1])[:12],
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_messages_are_refused(kind):
    with pytest.raises(ProtocolError):
        parse_head(REFUSED[kind], len(REFUSED[kind]))


@given(st.binary(max_size=200), st.integers(0, 1 << 32))
def test_garbage_is_refused_or_needs_more(data, frame_bytes):
    try:
        head = parse_head(data, frame_bytes)
    except ProtocolError:
        return
    assert head is None or head.offset_bytes + head.size_bytes == frame_bytes


@given(st.data())
def test_a_mutated_message_is_refused_or_its_parts_still_fill_the_frame(data):
    frame = bytearray(message(data.draw(st.sampled_from(sorted(TERMS.values())))[1], b"0123"))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        head = parse_head(bytes(frame), len(frame))
    except ProtocolError:
        return
    assert head.offset_bytes + head.size_bytes == len(frame)


def test_no_more_than_the_longest_head_is_ever_waited_for():
    with pytest.raises(ProtocolError):
        parse_head(message(bytes([108, 0, 0, 4, 0]) + bytes([97, 97]) * 200)[:-7] + bytes(HEAD_BYTES_MAX), 1 << 30)
