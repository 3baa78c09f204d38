"""What campaigns store: content that a seed makes again, in lengths that take every way through the store.

Small ones dominate, so that many acknowledgements fit into a life; some are long enough to be spilled to the disk
before they are whole. Pure.
"""

import random
from typing import Final

from tests.store.objects import noise

LENGTHS_BYTES: Final = (*[100, 2_048, 5_000, 5_000, 20_000] * 3, 70_000, 300_000, 1_500_000)


def content(seed: int) -> bytes:
    """Return the bytes of `seed`."""
    return noise(random.Random(seed).choice(LENGTHS_BYTES), seed)
