"""Tickets: nobody but the gateway makes one, and nobody changes one."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from transfer import tickets
from transfer.errors import UnauthorisedError
from transfer.tickets import Ticket, TicketNode

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
NODE = TicketNode("node-1", "127.0.0.1", 4242, "ab" * 32, "host-a")
TICKET = Ticket("t-1", "workstation", "cd" * 32, ["put", "get"], [NODE], 1, 1 << 40, 1000.0)

rights = st.lists(st.sampled_from(["put", "get", "check", "reserve"]), unique=True)
node_ids = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,63}", fullmatch=True)
nodes = st.builds(TicketNode, node_ids, st.text(), st.integers(0, 65535), st.text(), st.text())
made = st.builds(
    Ticket,
    st.text(),
    st.text(),
    st.text(),
    rights,
    st.lists(nodes, max_size=5),
    st.integers(0, 16),
    st.integers(0, 1 << 46),
    st.floats(0, 1e12),
)


@given(made)
def test_what_was_signed_is_what_is_read(ticket: Ticket) -> None:
    assert tickets.verify(tickets.sign(ticket, KEY), PUBLIC, now_s=0.0) == ticket


def test_every_flipped_bit_is_refused() -> None:
    signed = tickets.sign(TICKET, KEY)
    for bit in range(len(signed) * 8):
        altered = bytearray(signed)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(UnauthorisedError):
            tickets.verify(bytes(altered), PUBLIC, now_s=0.0)


def test_every_cut_and_every_longer_ticket_is_refused() -> None:
    signed = tickets.sign(TICKET, KEY)
    for altered in [*(signed[:end] for end in range(len(signed))), signed + b"\0", b"\0" + signed]:
        with pytest.raises(UnauthorisedError):
            tickets.verify(altered, PUBLIC, now_s=0.0)


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(UnauthorisedError):
        tickets.verify(garbage, PUBLIC, now_s=0.0)


def test_another_gateways_ticket_is_refused() -> None:
    with pytest.raises(UnauthorisedError, match="not this gateway's"):
        tickets.verify(tickets.sign(TICKET, Ed25519PrivateKey.generate()), PUBLIC, now_s=0.0)


def test_a_signature_made_for_another_purpose_is_refused() -> None:
    body = msgspec.msgpack.encode(TICKET)
    for context in (b"", b"fascicle receipt 1\n", b"fascicle ticket 2\n"):
        with pytest.raises(UnauthorisedError):
            tickets.verify(body + KEY.sign(context + body), PUBLIC, now_s=0.0)


def test_signed_bytes_that_are_no_ticket_are_refused() -> None:
    body = msgspec.msgpack.encode(["t-1"])
    with pytest.raises(UnauthorisedError):
        tickets.verify(body + KEY.sign(tickets.CONTEXT + body), PUBLIC, now_s=0.0)


@pytest.mark.parametrize("now_s", [0.0, 999.9, 1000.0])
def test_it_is_good_until_it_expires(now_s: float) -> None:
    assert tickets.verify(tickets.sign(TICKET, KEY), PUBLIC, now_s=now_s) == TICKET


def test_it_is_refused_afterwards_and_by_the_real_clock() -> None:
    signed = tickets.sign(TICKET, KEY)
    with pytest.raises(UnauthorisedError, match="expired 0 s ago; renew"):
        tickets.verify(signed, PUBLIC, now_s=1000.1)
    with pytest.raises(UnauthorisedError, match=r"expired [0-9]{10} s ago.*set the clocks"):
        tickets.verify(signed, PUBLIC)  # it expired in 1970


OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def test_while_keys_overlap_either_is_good_and_a_third_is_not() -> None:
    both = (OTHER.public_key(), PUBLIC)
    assert tickets.verify(tickets.sign(TICKET, KEY), *both, now_s=0.0) == TICKET
    assert tickets.verify(tickets.sign(TICKET, OTHER), *both, now_s=0.0) == TICKET
    with pytest.raises(UnauthorisedError, match="not this gateway's"):
        tickets.verify(tickets.sign(TICKET, Ed25519PrivateKey.generate()), *both, now_s=0.0)
    with pytest.raises(UnauthorisedError, match="not this gateway's"):
        tickets.verify(tickets.sign(TICKET, KEY), now_s=0.0)  # no key at all


def test_two_keys_make_no_altered_ticket_good() -> None:
    signed = tickets.sign(TICKET, KEY)
    for bit in range(len(signed) * 8):
        altered = bytearray(signed)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(UnauthorisedError):
            tickets.verify(bytes(altered), OTHER.public_key(), PUBLIC, now_s=0.0)


@pytest.mark.parametrize(("of", "wanted", "good"), [(0, 0, True), (3, 3, True), (4, 3, True), (2, 3, False)])
def test_an_epoch_that_has_passed_is_refused(of: int, wanted: int, good: bool) -> None:
    ticket = msgspec.structs.replace(TICKET, epoch=of)
    signed = tickets.sign(ticket, KEY)
    if good:
        assert tickets.verify(signed, PUBLIC, epoch=wanted, now_s=0.0) == ticket
    else:
        with pytest.raises(UnauthorisedError, match="revoked; renew"):
            tickets.verify(signed, PUBLIC, epoch=wanted, now_s=0.0)


def test_a_ticket_from_before_epochs_is_of_epoch_0() -> None:
    body = msgspec.msgpack.encode(list(msgspec.structs.astuple(TICKET))[:-1])
    assert tickets.verify(body + KEY.sign(tickets.CONTEXT + body), PUBLIC, now_s=0.0) == TICKET
