"""The Merkle root: one set of ids, one root."""

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from transfer.merkle import EMPTY, merkle_root

ids = st.binary(min_size=32, max_size=32).map(bytes.hex)


def reference(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1 as it is written there: recursive, split at the largest power of two below the length."""
    if len(leaves) == 1:
        return blake3(b"\0" + leaves[0]).digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return blake3(b"\1" + reference(leaves[:half]) + reference(leaves[half:])).digest()


@given(st.sets(ids, min_size=1, max_size=70))
def test_it_is_the_root_of_rfc_6962(found: set[str]) -> None:
    assert merkle_root(found) == reference([bytes.fromhex(leaf) for leaf in sorted(found)]).hex()


@given(st.lists(ids, max_size=20), st.randoms(use_true_random=False))
def test_neither_order_nor_repeats_matter(found: list[str], random) -> None:
    again = found * 2
    random.shuffle(again)
    assert merkle_root(again) == merkle_root(iter(found))


@given(st.lists(ids, max_size=20, unique=True), ids)
def test_one_more_object_is_another_root(found: list[str], more: str) -> None:
    assert (merkle_root([*found, more]) == merkle_root(found)) == (more in found)


def test_the_empty_transfer_has_a_root_of_its_own() -> None:
    assert merkle_root([]) == EMPTY == blake3(b"").hexdigest()
    assert merkle_root(["00" * 32]) == blake3(bytes(33)).hexdigest() != EMPTY
