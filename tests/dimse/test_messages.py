"""Command sets and messages, against pydicom's and pynetdicom's idea of them."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from tests.dicom.build import CT
from tests.dimse.peer import command, echo_request, store_request
from transfer.dimse.commands import MAX_COMMAND_BYTES, Request, decode_request, encode_response
from transfer.dimse.messages import DataFragment, MessageReader, RequestBegun
from transfer.dimse.pdu import Pdv
from transfer.errors import ProtocolError

STORE = Request(command_field=1, message_id=1, has_data_set=True, sop_class_uid=CT, sop_instance_uid="1.2.3")


def value(data, *, context_id=1, is_command=True, is_last=True):
    return Pdv(context_id, is_command, is_last, memoryview(data))


def test_requests_are_read():
    assert decode_request(store_request()) == STORE
    echo = Request(command_field=0x30, message_id=7, has_data_set=False, sop_class_uid="1.2.840.10008.1.1")
    assert decode_request(echo_request(7)) == echo


@pytest.mark.parametrize("status", [0, 0xA700, 0xC000])
def test_responses_are_read_by_pydicom(status):
    data = encode_response(STORE, status, "no room ü" if status else "")
    read = decode(io.BytesIO(data), True, True)
    assert read.CommandGroupLength == len(data) - 12
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.Status) == (0x8001, 1, status)
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert read.CommandDataSetType == 0x0101
    assert read.get("ErrorComment") == ("no room ?" if status else None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        store_request()[:-1],
        store_request()[:20],
        command(CommandField=0x8001, MessageID=1, CommandDataSetType=0x0101),
        command(MessageID=1, CommandDataSetType=0x0101),
        command(CommandField=1, MessageID=1),
        b"\x08\0\0\0\0\0\0\0" + store_request(),
        b"\0\0\0\x01\xff\xff\xff\xff" + store_request(),
    ],
)
def test_wrong_commands_are_refused(data):
    with pytest.raises(ProtocolError):
        decode_request(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_our_error(data):
    with contextlib.suppress(ProtocolError):  # a refusal is fine, any other error fails
        assert isinstance(decode_request(data), Request)


def test_a_message_in_pieces():
    reader, request = MessageReader({1, 3}), store_request()
    assert reader.take(value(request[:10], is_last=False)) is None
    assert reader.take(value(request[10:])) == RequestBegun(1, STORE)
    assert reader.take(value(b"ab", is_command=False, is_last=False)) == DataFragment(memoryview(b"ab"), False)
    assert reader.take(value(b"", is_command=False)) == DataFragment(memoryview(b""), True)
    assert isinstance(reader.take(value(echo_request(), context_id=3)), RequestBegun)
    assert isinstance(reader.take(value(echo_request(), context_id=1)), RequestBegun)


def test_cancels_are_passed():
    cancel = command(CommandField=0x0FFF, MessageIDBeingRespondedTo=1, CommandDataSetType=0x0101)
    assert MessageReader({1}).take(value(cancel)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        value(b"x", context_id=5),
        value(b"x", context_id=3, is_command=False),
        value(b"x", is_command=True),
    ],
)
def test_messages_that_interleave_are_refused(wrong):
    reader = MessageReader({1, 3})
    reader.take(value(store_request()))
    with pytest.raises(ProtocolError):
        reader.take(wrong)


def test_data_before_a_command_is_refused():
    with pytest.raises(ProtocolError):
        MessageReader({1}).take(value(b"x", is_command=False))


def test_commands_are_bounded():
    reader = MessageReader({1})
    reader.take(value(bytes(MAX_COMMAND_BYTES), is_last=False))
    with pytest.raises(ProtocolError, match="longer than"):
        reader.take(value(b"x"))
