"""`shuffle-lz4`: the bits of all samples regrouped, first all lowest bits and so on (bitshuffle), then LZ4.

the LZ4 block of the shuffled strip (no header)
"""

import imagecodecs
import numpy as np
from typing_extensions import Buffer

from transfer.encodings.codecs import Form
from transfer.encodings.strip import Strip
from transfer.errors import CorruptError


class ShuffleLz4:
    """The cheapest rung: hundreds of MB/s each way, on one core."""

    def encode(self, strip: Strip) -> bytes:
        """Return the LZ4 block."""
        return bytes(imagecodecs.lz4_encode(shuffle(strip)))

    def decode(self, stored: Buffer, form: Form) -> Strip:
        """Return the strip; LZ4 gives at most the room that it is given."""
        length = form.rows * form.columns * form.components * form.sample_bytes
        try:
            shuffled = imagecodecs.lz4_decode(stored, out=length)
        except (RuntimeError, ValueError) as error:
            raise CorruptError(f"a strip is not LZ4: {error}") from error
        return unshuffle(shuffled, form)


def shuffle(strip: Strip) -> bytes:
    """Return the bits of a contiguous strip regrouped, as long as it was."""
    return bytes(imagecodecs.bitshuffle_encode(strip.data.cast("B"), itemsize=strip.itemsize))


def unshuffle(shuffled: Buffer, form: Form) -> Strip:
    """Return what `shuffle` was given.

    Raises:
        CorruptError: it has another length.
    """
    strip = np.empty((form.rows, form.columns, form.components), f"<u{form.sample_bytes}")
    if memoryview(shuffled).nbytes != strip.nbytes:
        raise CorruptError("a strip has another length than its shape")
    imagecodecs.bitshuffle_decode(shuffled, itemsize=form.sample_bytes, out=strip.data.cast("B"))
    return strip
