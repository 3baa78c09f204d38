"""The Merkle root over a transfer's object ids (RFC 6962 section 2.1, with BLAKE3 in SHA-256's place).

Leaves are the 32-byte ids in ascending order without repeats, so both ends get the same root in whatever order
the objects went.
"""

from collections.abc import Iterable
from typing import Final

from blake3 import blake3

EMPTY: Final = blake3(b"").hexdigest()


def merkle_root(object_ids: Iterable[str]) -> str:
    """Return the root as 64 hex digits; `object_ids` are hex and may repeat."""
    level = [blake3(b"\0" + bytes.fromhex(leaf)).digest() for leaf in sorted(set(object_ids))]
    if not level:
        return EMPTY
    while len(level) > 1:
        paired = [blake3(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return level[0].hex()
