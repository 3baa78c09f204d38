"""Receipts: a node's word is its own, whole and unaltered."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from transfer import receipts
from transfer.errors import ProtocolError, UnauthorisedError
from transfer.objects import Identity
from transfer.protocol.messages import Stored
from transfer.receipts import Receipt, ReceiptBatch

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
IDENTITY = Identity(sop_instance_uid="1.2.3", patient_id="P1", modality="CT")
BATCH = ReceiptBatch("node-1", "life-1", "t-1", [Receipt(bytes(32), 10, 8, "zstd", ["node-1", "node-2"], IDENTITY)])

sizes = st.integers(0, 1 << 46)
names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,63}", fullmatch=True)
identities = st.builds(Identity, patient_name=st.text(max_size=64), study_date=st.text(max_size=64))
made = st.builds(
    Receipt,
    st.binary(min_size=32, max_size=32),
    sizes,
    sizes,
    st.sampled_from(["raw", "zstd"]),
    st.lists(names, max_size=4),
    identities,
)
batches = st.builds(ReceiptBatch, names, st.text(), st.text(), st.lists(made, max_size=5))


@given(batches)
def test_what_was_signed_is_what_is_read(batch: ReceiptBatch) -> None:
    stored = receipts.sign(batch, KEY)
    assert receipts.verify(stored, PUBLIC) == batch
    assert receipts.read_unverified(stored) == batch


def test_every_flipped_bit_is_refused() -> None:
    stored = receipts.sign(BATCH, KEY)
    whole = stored.batch + stored.signature
    for bit in range(len(whole) * 8):
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(UnauthorisedError):
            receipts.verify(Stored(bytes(altered[:-64]), bytes(altered[-64:])), PUBLIC)


def test_another_nodes_signature_is_refused() -> None:
    with pytest.raises(UnauthorisedError, match="not their node's"):
        receipts.verify(receipts.sign(BATCH, Ed25519PrivateKey.generate()), PUBLIC)


def test_a_ticket_is_no_receipt() -> None:
    body = receipts.sign(BATCH, KEY).batch
    with pytest.raises(UnauthorisedError):
        receipts.verify(Stored(body, KEY.sign(b"fascicle ticket 1\n" + body)), PUBLIC)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_signatures_of_any_length_are_refused(signature: bytes) -> None:
    with pytest.raises(UnauthorisedError):
        receipts.verify(Stored(receipts.sign(BATCH, KEY).batch, signature), PUBLIC)


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_even_when_signed(garbage: bytes) -> None:
    stored = Stored(garbage, KEY.sign(receipts.CONTEXT + garbage))
    with pytest.raises(ProtocolError):
        receipts.verify(stored, PUBLIC)
    with pytest.raises(ProtocolError):
        receipts.read_unverified(stored)
