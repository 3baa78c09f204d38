"""PDUs: what pynetdicom writes is read, what is written pynetdicom reads, what is wrong is refused."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import pdu as theirs

from tests.dicom.build import CT, EXPLICIT, IMPLICIT
from tests.dimse.peer import VERIFICATION, associate_request, pdv
from transfer.dimse import pdu
from transfer.dimse.pdu import AgreedContext, AssociateRequest, Pdv, ProposedContext, Rejection
from transfer.errors import ProtocolError

REQUEST = associate_request()


def test_request_is_read():
    request = pdu.decode_associate_request(REQUEST[6:])
    assert request == AssociateRequest(
        protocol_version=1,
        called_ae_title="FASCICLE",
        calling_ae_title="PEER",
        ae_title_bytes=b"FASCICLE        PEER            ",
        application_context=pdu.APPLICATION_CONTEXT,
        contexts=(ProposedContext(1, CT, (EXPLICIT, IMPLICIT)), ProposedContext(3, VERIFICATION, (IMPLICIT,))),
        max_pdu_bytes=16384,
        implementation_class_uid="1.2.3",
        implementation_version_name="",
    )


def test_accept_is_read_by_pynetdicom():
    answers = (AgreedContext(1, 0, EXPLICIT), AgreedContext(3, 3, ""))
    data = pdu.encode_associate_accept(
        pdu.decode_associate_request(REQUEST[6:]),
        answers,
        max_pdu_bytes=1 << 18,
        implementation_class_uid="1.2.3.4",
        implementation_version_name="NAME_1",
    )
    read = theirs.A_ASSOCIATE_AC()
    read.decode(data)
    assert (read.reserved_aet, read.reserved_aec) == ("FASCICLE", "PEER")
    assert [(c.context_id, c.result) for c in read.presentation_context] == [(1, 0), (3, 3)]
    assert read.presentation_context[0].transfer_syntax == EXPLICIT
    assert read.user_information.maximum_length == 1 << 18
    assert read.user_information.implementation_class_uid == "1.2.3.4"
    assert read.user_information.implementation_version_name == "NAME_1"


def test_small_pdus_are_the_standard_s_bytes():
    assert pdu.encode_associate_reject(pdu.LOCAL_LIMIT_EXCEEDED).hex() == "03000000000400020302"
    assert pdu.encode_associate_reject(Rejection(1, 1, 7)).hex() == "03000000000400010107"
    assert pdu.encode_release_response().hex() == "06000000000400000000"
    assert pdu.encode_abort(2, 1).hex() == "07000000000400000201"


def test_commands_are_split_to_what_the_peer_takes():
    assert pdu.encode_command(5, b"abc", 0) == struct.pack(">BxLLBB", 4, 9, 5, 5, 3) + b"abc"
    assert pdu.encode_command(5, b"abcd", 8) == b"".join(
        struct.pack(">BxLLBB", 4, 8, 4, 5, control) + piece for control, piece in ((1, b"ab"), (3, b"cd"))
    )
    assert len(pdu.encode_command(5, bytes(100), 1)) == 50 * 14  # a peer that takes nothing is taken at its least


def test_data_is_read_without_copies():
    body = pdv(b"one", is_command=True, is_last=False) + pdv(b"two", context_id=3)
    first, second = pdu.decode_data(body)
    assert first == Pdv(1, True, False, memoryview(b"one"))
    assert second == Pdv(3, False, True, memoryview(b"two"))
    assert first.fragment.obj is body


@pytest.mark.parametrize("body", [b"", bytes(5), struct.pack(">L", 2), pdv(b"ab")[:-1], struct.pack(">LBB", 1, 1, 0),
                                  struct.pack(">LBB", 0xFFFFFFFF, 1, 0)])  # fmt: skip
def test_wrong_data_is_refused(body):
    with pytest.raises(ProtocolError):
        pdu.decode_data(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        REQUEST[6:73],
        REQUEST[6:74],
        REQUEST[6:-1],
        REQUEST[6:] + b"\x50\0\0",
        REQUEST[6:] + b"\x20\0\0\x01\x01",
        REQUEST[6:] + b"\x20\0\0\x04\x02\0\0\0",
        REQUEST[6:] + b"\x20\0\0\x04\x05\0\0\0",
        REQUEST[6:] + b"\x50\0\0\x06\x51\0\0\x02\0\0",
        REQUEST[6:] + b"\x20\0\0\x0e\x01\0\0\0\x30\0\0\x011\x40\0\0\x011",
    ],
)
def test_wrong_requests_are_refused(body):
    with pytest.raises(ProtocolError):
        pdu.decode_associate_request(body)


@given(st.integers(0, len(REQUEST) - 7), st.binary(min_size=1, max_size=5))
def test_mutated_requests_give_a_request_or_our_error(at, new):
    body = bytearray(REQUEST[6:])
    body[at : at + len(new)] = new
    with contextlib.suppress(ProtocolError):  # a refusal is fine, any other error fails
        assert isinstance(pdu.decode_associate_request(bytes(body)), AssociateRequest)


@pytest.mark.parametrize(("kind", "limit"), [(1, 262144), (2, 262144), (3, 4), (4, 16448), (5, 4), (6, 4), (7, 4),
                                             (0, -1), (8, -1), (0x47, -1), (255, -1)])  # fmt: skip
def test_limits(kind, limit):
    assert pdu.limit_of(kind, 16384) == limit
