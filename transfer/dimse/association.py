"""The association state machine (PS3.8 9.2), acceptor side: bytes in, events out, replies as values.

`TRANSITIONS` is PS3.8 table 9-10 without the rows and columns that only a requestor reaches:

    Sta1 idle   Sta2 transport open, waiting for A-ASSOCIATE-RQ   Sta3 waiting for the local answer to it
    Sta6 ready  Sta8 waiting for the local answer to A-RELEASE-RQ   Sta13 waiting for the transport to close

The ARTIM timer runs in `ARTIM_STATES`; the driver owns the clock and calls `expire`. Whether a request is acceptable
(action AE-6) is the driver's decision, so Sta2 leads to Sta3 always. Refuses to do: I/O, clocks, message contents.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import msgspec

from transfer.dimse import pdu
from transfer.dimse.pdu import AbortReason, AgreedContext, AssociateRequest, PduType, Pdv, Rejection
from transfer.errors import ProtocolError


class State(Enum):
    """States of PS3.8 9.2.1 that an acceptor reaches."""

    STA1 = 1
    STA2 = 2
    STA3 = 3
    STA6 = 6
    STA8 = 8
    STA13 = 13


class Trigger(Enum):
    """Events of PS3.8 table 9-10, with their numbers there; 34 is either of 3 and 4."""

    ASSOCIATE_ANSWER_PDU = 34
    ASSOCIATE_RQ_PDU = 6
    ACCEPT = 7
    REJECT = 8
    SEND_DATA = 9
    DATA_PDU = 10
    RELEASE_RQ_PDU = 12
    RELEASE_RP_PDU = 13
    RELEASE = 14
    ABORT = 15
    ABORT_PDU = 16
    TRANSPORT_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


class Action(Enum):
    """Actions of PS3.8 tables 9-6 to 9-9; the value says what is left of them for this machine."""

    AE_6 = "indicate the request"
    AE_7 = "send A-ASSOCIATE-AC"
    AE_8 = "send A-ASSOCIATE-RJ"
    DT_1 = "send P-DATA-TF"
    DT_2 = "indicate data"
    AR_2 = "indicate release"
    AR_4 = "send A-RELEASE-RP"
    AR_5 = "nothing: closed in order"
    AR_7 = "send P-DATA-TF while releasing"
    AA_1 = "send A-ABORT as user"
    AA_2 = "close"
    AA_3 = "indicate the peer's abort, close"
    AA_4 = "indicate that the transport broke"
    AA_5 = "nothing: closed before a request"
    AA_6 = "ignore"
    AA_7 = "send A-ABORT again"
    AA_8 = "send A-ABORT as provider, indicate"


_S, _T, _A = State, Trigger, Action
TRANSITIONS: Final[dict[tuple[State, Trigger], tuple[Action, State]]] = {
    (_S.STA2, _T.ASSOCIATE_ANSWER_PDU): (_A.AA_1, _S.STA13),
    (_S.STA2, _T.ASSOCIATE_RQ_PDU): (_A.AE_6, _S.STA3),
    (_S.STA2, _T.DATA_PDU): (_A.AA_1, _S.STA13),
    (_S.STA2, _T.RELEASE_RQ_PDU): (_A.AA_1, _S.STA13),
    (_S.STA2, _T.RELEASE_RP_PDU): (_A.AA_1, _S.STA13),
    (_S.STA2, _T.ABORT_PDU): (_A.AA_2, _S.STA1),
    (_S.STA2, _T.TRANSPORT_CLOSED): (_A.AA_5, _S.STA1),
    (_S.STA2, _T.ARTIM_EXPIRED): (_A.AA_2, _S.STA1),
    (_S.STA2, _T.INVALID_PDU): (_A.AA_1, _S.STA13),
    (_S.STA3, _T.ASSOCIATE_ANSWER_PDU): (_A.AA_8, _S.STA13),
    (_S.STA3, _T.ASSOCIATE_RQ_PDU): (_A.AA_8, _S.STA13),
    (_S.STA3, _T.ACCEPT): (_A.AE_7, _S.STA6),
    (_S.STA3, _T.REJECT): (_A.AE_8, _S.STA13),
    (_S.STA3, _T.DATA_PDU): (_A.AA_8, _S.STA13),
    (_S.STA3, _T.RELEASE_RQ_PDU): (_A.AA_8, _S.STA13),
    (_S.STA3, _T.RELEASE_RP_PDU): (_A.AA_8, _S.STA13),
    (_S.STA3, _T.ABORT): (_A.AA_1, _S.STA13),
    (_S.STA3, _T.ABORT_PDU): (_A.AA_3, _S.STA1),
    (_S.STA3, _T.TRANSPORT_CLOSED): (_A.AA_4, _S.STA1),
    (_S.STA3, _T.INVALID_PDU): (_A.AA_8, _S.STA13),
    (_S.STA6, _T.ASSOCIATE_ANSWER_PDU): (_A.AA_8, _S.STA13),
    (_S.STA6, _T.ASSOCIATE_RQ_PDU): (_A.AA_8, _S.STA13),
    (_S.STA6, _T.SEND_DATA): (_A.DT_1, _S.STA6),
    (_S.STA6, _T.DATA_PDU): (_A.DT_2, _S.STA6),
    (_S.STA6, _T.RELEASE_RQ_PDU): (_A.AR_2, _S.STA8),
    (_S.STA6, _T.RELEASE_RP_PDU): (_A.AA_8, _S.STA13),
    (_S.STA6, _T.ABORT): (_A.AA_1, _S.STA13),
    (_S.STA6, _T.ABORT_PDU): (_A.AA_3, _S.STA1),
    (_S.STA6, _T.TRANSPORT_CLOSED): (_A.AA_4, _S.STA1),
    (_S.STA6, _T.INVALID_PDU): (_A.AA_8, _S.STA13),
    (_S.STA8, _T.ASSOCIATE_ANSWER_PDU): (_A.AA_8, _S.STA13),
    (_S.STA8, _T.ASSOCIATE_RQ_PDU): (_A.AA_8, _S.STA13),
    (_S.STA8, _T.SEND_DATA): (_A.AR_7, _S.STA8),
    (_S.STA8, _T.DATA_PDU): (_A.AA_8, _S.STA13),
    (_S.STA8, _T.RELEASE_RQ_PDU): (_A.AA_8, _S.STA13),
    (_S.STA8, _T.RELEASE_RP_PDU): (_A.AA_8, _S.STA13),
    (_S.STA8, _T.RELEASE): (_A.AR_4, _S.STA13),
    (_S.STA8, _T.ABORT): (_A.AA_1, _S.STA13),
    (_S.STA8, _T.ABORT_PDU): (_A.AA_3, _S.STA1),
    (_S.STA8, _T.TRANSPORT_CLOSED): (_A.AA_4, _S.STA1),
    (_S.STA8, _T.INVALID_PDU): (_A.AA_8, _S.STA13),
    (_S.STA13, _T.ASSOCIATE_ANSWER_PDU): (_A.AA_6, _S.STA13),
    (_S.STA13, _T.ASSOCIATE_RQ_PDU): (_A.AA_7, _S.STA13),
    (_S.STA13, _T.DATA_PDU): (_A.AA_6, _S.STA13),
    (_S.STA13, _T.RELEASE_RQ_PDU): (_A.AA_6, _S.STA13),
    (_S.STA13, _T.RELEASE_RP_PDU): (_A.AA_6, _S.STA13),
    (_S.STA13, _T.ABORT_PDU): (_A.AA_2, _S.STA1),
    (_S.STA13, _T.TRANSPORT_CLOSED): (_A.AR_5, _S.STA1),
    (_S.STA13, _T.ARTIM_EXPIRED): (_A.AA_2, _S.STA1),
    (_S.STA13, _T.INVALID_PDU): (_A.AA_7, _S.STA13),
}
ARTIM_STATES: Final = frozenset({State.STA2, State.STA13})
_ABORTS: Final = {Action.AA_1: 0, Action.AA_7: 2, Action.AA_8: 2}  # action -> source of the A-ABORT that it sends
_PDU_TRIGGERS: Final = {
    PduType.ASSOCIATE_RQ: Trigger.ASSOCIATE_RQ_PDU,
    PduType.ASSOCIATE_AC: Trigger.ASSOCIATE_ANSWER_PDU,
    PduType.ASSOCIATE_RJ: Trigger.ASSOCIATE_ANSWER_PDU,
    PduType.DATA_TF: Trigger.DATA_PDU,
    PduType.RELEASE_RQ: Trigger.RELEASE_RQ_PDU,
    PduType.RELEASE_RP: Trigger.RELEASE_RP_PDU,
    PduType.ABORT: Trigger.ABORT_PDU,
}
_DECODERS: Final[dict[Trigger, Callable[[bytes], Any]]] = {
    Trigger.ASSOCIATE_RQ_PDU: pdu.decode_associate_request,
    Trigger.DATA_PDU: pdu.decode_data,
}


class ReleaseRequested(msgspec.Struct, frozen=True):
    """The peer wants to end in order; answer with `release`."""


class Ended(msgspec.Struct, frozen=True):
    """The association is over: send `reply` (may be empty), then close the transport."""

    reply: bytes
    reason: str


Event = AssociateRequest | Pdv | ReleaseRequested | Ended


class Association:
    """One association. Feed bytes, take events until there are none, send what the methods return."""

    def __init__(self, *, max_pdu_bytes: int) -> None:
        self.state = State.STA2
        self.request: AssociateRequest | None = None
        self._max_pdu_bytes = max_pdu_bytes
        self._buffer = bytearray()
        self._pdvs: deque[Pdv] = deque()

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes from the transport; no more than one PDU is buffered if `next_event` is asked until None."""
        self._buffer += data

    def next_event(self) -> Event | None:
        """Return what happened next, or None when more bytes are needed."""
        while not self._pdvs:
            if self.state is State.STA1 or len(self._buffer) < pdu.HEADER_BYTES:
                return None
            pdu_type, length = pdu.decode_header(self._buffer)
            refusal = self._judge(pdu_type, length)
            if refusal is not None:
                return refusal
            if len(self._buffer) < pdu.HEADER_BYTES + length:
                return None
            event = self._take(_PDU_TRIGGERS[PduType(pdu_type)], self._cut(length))
            if event is not None:
                return event
        return self._pdvs.popleft()

    def _judge(self, pdu_type: int, length: int) -> Ended | None:
        """Judge a PDU by its header, before its body is waited for; None when it may come."""
        limit = pdu.limit_of(pdu_type, self._max_pdu_bytes)
        if limit < 0:
            return self._refuse(Trigger.INVALID_PDU, AbortReason.UNRECOGNISED_PDU, "not a DICOM PDU")
        if length > limit:
            why = f"{PduType(pdu_type).name} longer than {limit} bytes"
            return self._refuse(Trigger.INVALID_PDU, AbortReason.INVALID_PARAMETER, why)
        trigger = _PDU_TRIGGERS[PduType(pdu_type)]
        if TRANSITIONS[self.state, trigger][0] in _ABORTS:
            return self._refuse(trigger, AbortReason.UNEXPECTED_PDU, f"{PduType(pdu_type).name} in {self.state.name}")
        return None

    def _cut(self, length: int) -> bytes:
        end = pdu.HEADER_BYTES + length
        body = bytes(memoryview(self._buffer)[pdu.HEADER_BYTES : end])
        del self._buffer[:end]
        return body

    def _take(self, trigger: Trigger, body: bytes) -> Event | None:
        try:
            decoded = _DECODERS.get(trigger, bytes)(body)
        except ProtocolError as error:
            return self._refuse(Trigger.INVALID_PDU, AbortReason.INVALID_PARAMETER, error.message)
        action = self._fire(trigger)
        if action is Action.AE_6:
            self.request = decoded
            return self.request
        if action is Action.DT_2:
            self._pdvs.extend(decoded)
        elif action is Action.AR_2:
            return ReleaseRequested()
        elif action in (Action.AA_2, Action.AA_3):
            return Ended(b"", f"aborted by the peer, source {body[2:3].hex()} reason {body[3:4].hex()}")
        return None

    def accept(self, contexts: tuple[AgreedContext, ...], *, class_uid: str, version_name: str) -> bytes:
        """Answer the request with A-ASSOCIATE-AC."""
        self._fire(Trigger.ACCEPT)
        return pdu.encode_associate_accept(
            self._requested(),
            contexts,
            max_pdu_bytes=self._max_pdu_bytes,
            implementation_class_uid=class_uid,
            implementation_version_name=version_name,
        )

    def reject(self, rejection: Rejection) -> bytes:
        """Answer the request with A-ASSOCIATE-RJ; the association is over."""
        self._fire(Trigger.REJECT)
        return pdu.encode_associate_reject(rejection)

    def send_command(self, context_id: int, command: bytes) -> bytes:
        """Return a command set as PDUs that the peer takes."""
        self._fire(Trigger.SEND_DATA)
        return pdu.encode_command(context_id, command, self._requested().max_pdu_bytes)

    def release(self) -> bytes:
        """Answer `ReleaseRequested`; the association is over."""
        self._fire(Trigger.RELEASE)
        return pdu.encode_release_response()

    def abort(self) -> bytes:
        """Abort as the service user; the association is over."""
        self._fire(Trigger.ABORT)
        return pdu.encode_abort(0, 0)

    def close(self) -> str:
        """Note that the transport was closed or broke; return what that means, "" when it was in order."""
        action = self._fire(Trigger.TRANSPORT_CLOSED)
        return "connection lost" if action is Action.AA_4 else ""

    def expire(self) -> None:
        """Note that the ARTIM timer expired: close the transport."""
        self._fire(Trigger.ARTIM_EXPIRED)

    def _refuse(self, trigger: Trigger, reason: AbortReason, why: str) -> Ended:
        source = _ABORTS[self._fire(trigger)]
        self._buffer.clear()
        return Ended(pdu.encode_abort(source, reason if source else 0), why)

    def _fire(self, trigger: Trigger) -> Action:
        if (self.state, trigger) not in TRANSITIONS:
            raise RuntimeError(f"{trigger.name} cannot be in {self.state.name}")
        action, self.state = TRANSITIONS[self.state, trigger]
        return action

    def _requested(self) -> AssociateRequest:
        if self.request is None:
            raise RuntimeError("no association was requested")
        return self.request
