"""Who may open a flow, against a model: keys, epochs, revocations, expiry, rights; Hypothesis looks for a way in."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from nodes import admission
from nodes.trust import Trusted
from tests.faults.histories.mutants import Replaced, applied
from transfer import tickets
from transfer.errors import UnauthorisedError
from transfer.membership import Trust
from transfer.tickets import Ticket, TicketNode
from transfer.tls import Peer

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in range(1, 9)]
NAMES = ("ws-1", "ws-2")
NODE = TicketNode("node-1", "", 0, "", "")


def in_hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


class Issued(msgspec.Struct, frozen=True):
    """A ticket that was given out, and what is true of it."""

    signed: bytes
    ticket: Ticket
    key: int
    epoch: int


class Permits(RuleBasedStateMachine):
    """A gateway that gives tickets, rotates, revokes; a node that learns of it late or never; clients that try."""

    given = Bundle("given")

    @initialize()
    def begin(self) -> None:
        self.now_s = 1_800_000_000.0
        self.clock = SimpleNamespace(time=lambda: self.now_s)
        self.kept = [(module, module.time) for module in (admission, tickets)]
        for module, _ in self.kept:
            module.time = self.clock
        self.key, self.epoch, self.revoked = 1, 0, {}
        self.issued_at = dict.fromkeys(NAMES, int(self.now_s))  # when each one's certificate begins
        self.trusts = [self._trust()]
        self.trusted = Trusted(self.trusts[0])
        self.known = self.trusts[0]  # the newest that the node was told

    def teardown(self) -> None:
        for module, time in getattr(self, "kept", []):
            module.time = time

    def _trust(self) -> Trust:
        keys = [in_hex(KEYS[number]) for number in (self.key, self.key - 1)]
        return Trust(keys=keys, epoch=self.epoch, revoked=dict(self.revoked))

    @rule(target=given, name=st.sampled_from(NAMES), rights=st.sampled_from([["put"], ["get"], ["put", "get"]]))
    def give(self, name: str, rights: list[Any]) -> Issued:
        return self._sign(name, rights, self.key, self.epoch, self.now_s + tickets.LIFETIME_S)

    @rule(target=given, name=st.sampled_from(NAMES))
    def give_in_full(self, name: str) -> Issued:
        return self.give(name, ["put", "get"])

    @rule(target=given, name=st.sampled_from(NAMES))
    def forge(self, name: str) -> Issued:
        """With a key that was never the gateway's."""
        return self._sign(name, ["put", "get"], 0, self.epoch, self.now_s + tickets.LIFETIME_S)

    def _sign(self, name: str, rights: list[Any], key: int, epoch: int, expires_at_s: float) -> Issued:
        ticket = Ticket("t", name, f"fingerprint of {name}", rights, [NODE], 1, 1 << 30, expires_at_s, epoch)
        signer = KEYS[key] if key else Ed25519PrivateKey.from_private_bytes(bytes(32))
        return Issued(tickets.sign(ticket, signer), ticket, key, epoch)

    @rule(revoke=st.booleans())
    def rotate(self, revoke: bool) -> None:
        if self.key < len(KEYS) - 1:
            self.key, self.epoch = self.key + 1, self.epoch + revoke
            self.trusts.append(self._trust())

    @rule(name=st.sampled_from(NAMES))
    def revoke(self, name: str) -> None:
        self.revoked[name] = int(self.now_s)
        self.trusts.append(self._trust())

    @rule(name=st.sampled_from(NAMES))
    def enrol_anew(self, name: str) -> None:
        self.now_s += 2
        self.issued_at[name] = int(self.now_s)

    @rule(ago=st.sampled_from([0, 0, 0, 1, 2]))
    def tell(self, ago: int) -> None:
        """What the gateway says now, or what an old copy of it would say: an epoch never goes back."""
        trust = self.trusts[max(0, len(self.trusts) - 1 - ago)]
        try:
            self.trusted.take(trust)
        except UnauthorisedError:
            assert trust.epoch < self.known.epoch
        else:
            assert trust.epoch >= self.known.epoch, "an epoch went back"
            self.known = trust

    @rule(step_s=st.sampled_from([-400.0, -30.0, 50.0, 119.0, 121.0]))
    def set_clock(self, step_s: float) -> None:
        self.now_s += step_s

    @rule(
        issued=given,
        stranger=st.sampled_from([False, False, False, True]),
        right=st.sampled_from(["put", "get"]),
        flip=st.sampled_from([False, False, False, True]),
        bit=st.integers(0, 1000),
    )
    def try_to_open(self, issued: Issued, stranger: bool, right: Any, flip: bool, bit: int) -> None:
        signed, name = bytearray(issued.signed), issued.ticket.holder
        if stranger:
            name = NAMES[1 - NAMES.index(name)]
        if flip:
            signed[bit // 8 % len(signed)] ^= 1 << bit % 8
        peer = Peer(name, "workstation", f"fingerprint of {name}", not_before_s=self.issued_at[name])
        try:
            ticket = admission.admit(bytes(signed), peer, node_id="node-1", trusted=self.trusted)
            admission.require(ticket, right)
        except UnauthorisedError:
            assert not self._may(issued, name, right, flip), "a good ticket was refused"
        else:
            assert self._may(issued, name, right, flip), "somebody got in"

    def _may(self, issued: Issued, name: str, right: Any, flipped: bool) -> bool:
        return (
            not flipped
            and issued.key > 0
            and in_hex(KEYS[issued.key]) in self.known.keys
            and issued.epoch >= self.known.epoch
            and self.now_s <= issued.ticket.expires_at_s <= self.now_s + tickets.LIFETIME_S + admission.CLOCKS_APART_S
            and issued.ticket.holder == name
            and right in issued.ticket.rights
            and self.issued_at[name] > self.known.revoked.get(name, -1)
        )


TestPermits = Permits.TestCase
TestPermits.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

_verify, _admit = tickets.verify, admission.admit


def _unsigned(signed: bytes, *_: object, **__: object) -> Ticket:
    try:
        return msgspec.msgpack.decode(signed[: -tickets.SIGNATURE_BYTES], type=Ticket)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnauthorisedError("not a ticket") from error


def _as_its_holder(signed: bytes, peer: Peer, **rest: Any) -> Ticket:
    return _admit(signed, msgspec.structs.replace(peer, fingerprint=_unsigned(signed).client_fingerprint), **rest)


def _take_anything(trusted: Trusted, trust: Trust) -> bool:
    trusted.__init__(trust)
    return True


MUTANTS: dict[str, list[Replaced]] = {
    "ticket not checked": [(tickets, "verify", _unsigned)],
    "signature not checked": [(tickets, "_is_of", lambda *_: True)],
    "epoch ignored": [(tickets, "verify", lambda signed, *keys, epoch, now_s: _verify(signed, *keys, now_s=now_s))],
    "expiry ignored": [
        (tickets, "verify", lambda signed, *keys, epoch, now_s: _verify(signed, *keys, epoch=epoch, now_s=0.0))
    ],
    "another's certificate": [(admission, "admit", _as_its_holder)],
    "rights ignored": [(admission, "require", lambda *_: None)],
    "revocation ignored": [(Trusted, "is_revoked", lambda *_: False)],
    "an epoch goes back": [(Trusted, "take", _take_anything)],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_notices_a_door_left_open(mutant: str) -> None:
    brief = settings(TestPermits.settings, database=None, phases=[Phase.generate], max_examples=5000, derandomize=True)
    with applied(MUTANTS[mutant]), pytest.raises(AssertionError):
        run_state_machine_as_test(Permits, settings=brief)
