"""The association machine: every cell of its table, whole and byte by byte, and whatever is no PDU."""

import itertools

import pytest

from tests.dicom.build import EXPLICIT
from tests.dimse.peer import ABORT, RELEASE, associate_request, data_pdu, echo_request, pdu, pdv
from transfer.dimse.association import (
    ARTIM_STATES,
    TRANSITIONS,
    Action,
    Association,
    Ended,
    ReleaseRequested,
    State,
    Trigger,
)
from transfer.dimse.pdu import NO_REASON, AgreedContext, AssociateRequest, Pdv

REQUEST = associate_request()
ACCEPT = pdu(2, REQUEST[6:])
DATA = data_pdu(pdv(b"ab"))
BYTES = {
    Trigger.ASSOCIATE_ANSWER_PDU: ACCEPT,
    Trigger.ASSOCIATE_RQ_PDU: REQUEST,
    Trigger.DATA_PDU: DATA,
    Trigger.RELEASE_RQ_PDU: RELEASE,
    Trigger.RELEASE_RP_PDU: pdu(6, bytes(4)),
    Trigger.ABORT_PDU: ABORT,
    Trigger.INVALID_PDU: b"GET / HTTP/1.1\r\n",
}
USER_ABORT, PROVIDER_ABORT = bytes.fromhex("0700000000040000 0000"), bytes.fromhex("0700000000040000 02")


def accept(association):
    return association.accept((AgreedContext(1, 0, EXPLICIT),), class_uid="1.2.3", version_name="X")


LOCAL = {
    Trigger.ACCEPT: accept,
    Trigger.REJECT: lambda association: association.reject(NO_REASON),
    Trigger.SEND_DATA: lambda association: association.send_command(1, b"ab"),
    Trigger.RELEASE: lambda association: association.release(),
    Trigger.ABORT: lambda association: association.abort(),
    Trigger.TRANSPORT_CLOSED: lambda association: association.close(),
    Trigger.ARTIM_EXPIRED: lambda association: association.expire(),
}


def in_state(state):
    association = Association(max_pdu_bytes=16384)
    if state is State.STA2:
        return association
    association.feed(REQUEST)
    assert isinstance(association.next_event(), AssociateRequest)
    if state is State.STA13:
        association.reject(NO_REASON)
    elif state is not State.STA3:
        accept(association)
    if state is State.STA8:
        association.feed(RELEASE)
        assert association.next_event() == ReleaseRequested()
    assert association.state is state
    return association


LIVE = [state for state in State if state is not State.STA1]


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(LIVE, BYTES)), ids=str)
def test_each_pdu_in_each_state(state, trigger):
    association = in_state(state)
    association.feed(BYTES[trigger])
    event = association.next_event()
    action, after = TRANSITIONS[state, trigger]
    assert association.state is after
    if action is Action.AA_1:
        assert isinstance(event, Ended)
        assert event.reply == USER_ABORT
    elif action in (Action.AA_7, Action.AA_8):
        assert isinstance(event, Ended)
        assert event.reply[:9] == PROVIDER_ABORT
    elif action in (Action.AA_2, Action.AA_3):
        assert event == Ended(b"", "aborted by the peer, source 00 reason 00")
    else:
        expected = {Action.AE_6: AssociateRequest, Action.DT_2: Pdv, Action.AR_2: ReleaseRequested}
        assert type(event) is expected.get(action, type(None))


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(LIVE, LOCAL)), ids=str)
def test_each_local_step_in_each_state(state, trigger):
    association = in_state(state)
    if (state, trigger) in TRANSITIONS:
        LOCAL[trigger](association)
        assert association.state is TRANSITIONS[state, trigger][1]
    else:
        with pytest.raises(RuntimeError, match=trigger.name):
            LOCAL[trigger](association)
        assert association.state is state


def test_the_table_is_whole():
    assert {(state, trigger) for state in LIVE for trigger in BYTES} <= set(TRANSITIONS)
    assert {state for state, trigger in TRANSITIONS if trigger is Trigger.ARTIM_EXPIRED} == ARTIM_STATES
    assert all((state, Trigger.TRANSPORT_CLOSED) in TRANSITIONS for state in LIVE)
    assert in_state(State.STA6).close() == "connection lost"
    assert in_state(State.STA2).close() == in_state(State.STA13).close() == ""


def conversation(association, data, size):
    """Feed in pieces; accept and release as asked; return comparable events."""
    events = []
    for at in range(0, len(data), size):
        association.feed(data[at : at + size])
        while (event := association.next_event()) is not None:
            if isinstance(event, AssociateRequest):
                accept(association)
            if isinstance(event, ReleaseRequested):
                association.release()
            events.append((event.context_id, event.is_command, event.is_last, bytes(event.fragment))
                          if isinstance(event, Pdv) else event)  # fmt: skip
    return events


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10_000])
def test_any_pieces_give_the_same_events(size):
    data = (
        REQUEST + data_pdu(pdv(echo_request(), is_command=True)) + data_pdu(pdv(b"a"), pdv(b"", context_id=9)) + RELEASE
    )
    association = Association(max_pdu_bytes=16384)
    events = conversation(association, data, size)
    assert [type(event) for event in events] == [AssociateRequest, tuple, tuple, tuple, ReleaseRequested]
    assert events[1] == (1, True, True, echo_request())
    assert events[2:4] == [(1, False, True, b"a"), (9, False, True, b"")]
    assert association.state is State.STA13


@pytest.mark.parametrize("state", [State.STA2, State.STA6, State.STA8])
@pytest.mark.parametrize("kind", range(1, 8))
def test_a_pdu_of_4_gib_is_refused_by_its_header(state, kind):
    association = in_state(state)
    association.feed(bytes([kind, 0]) + b"\xff\xff\xff\xff")
    event = association.next_event()
    assert isinstance(event, Ended)
    assert event.reply[0] == 7
    assert association.next_event() is None


def test_nothing_is_buffered_of_what_is_refused():
    association = in_state(State.STA6)
    association.feed(bytes([4, 0]) + (16384 + 65).to_bytes(4, "big"))
    assert association.next_event() == Ended(PROVIDER_ABORT + b"\x06", "DATA_TF longer than 16448 bytes")
    assert not association._buffer


def test_a_wrong_pdv_aborts():
    association = in_state(State.STA6)
    association.feed(data_pdu(pdv(b"abc")[:-1]))
    assert association.next_event().reply == PROVIDER_ABORT + b"\x06"
    assert association.state is State.STA13
