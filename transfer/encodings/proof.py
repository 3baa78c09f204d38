"""The proof that an encoded object decodes to the original, at the sender. Nodes make it again before they acknowledge.

Refuses to do: choosing, falling back.
"""

import time

from typing_extensions import Buffer

from transfer.dicom.pixels import Pixels
from transfer.encodings.interface import BLOCK_BYTES, Decoder, Encoder, Encoding
from transfer.errors import CorruptError, NotSuitableError


def encode_checked(
    encoding: Encoding,
    data: Buffer,
    pixels: Pixels | None = None,
    *,
    seconds_max: float | None = None,
    prove: bool = True,
) -> bytes:
    """Return the stored form of a whole object, smaller than `data`, and decoded again and compared if `prove`.

    `pixels`: where its pixel data lies, if that is known. `seconds_max` is looked at between blocks of 1 MiB: a library
    that hangs is not stopped.

    Raises:
        NotSuitableError: not an object for this encoding, nothing gained by it, too slow, or the proof failed.
    """
    with memoryview(data) as raw, raw.cast("B") as view:
        deadline_s = None if seconds_max is None else time.perf_counter() + seconds_max
        stored = _encode(encoding.encoder(pixels), encoding.name, view, deadline_s)
        if len(stored) >= view.nbytes:
            raise NotSuitableError(f"{encoding.name} does not make the object smaller")
        if prove and not decodes_to(encoding.decoder(view.nbytes), stored, view):
            raise NotSuitableError(f"{encoding.name} did not give the original back")
        return stored


def _encode(encoder: Encoder, name: str, view: memoryview, deadline_s: float | None) -> bytes:
    out = []
    for start in range(0, view.nbytes, BLOCK_BYTES):
        out.append(encoder.feed(view[start : start + BLOCK_BYTES]))
        if deadline_s is not None and time.perf_counter() > deadline_s:
            raise NotSuitableError(f"{name} is too slow for this object")
    out.append(encoder.finish())
    return out[0] if not any(out[1:]) else b"".join(out)


def decodes_to(decoder: Decoder, stored: Buffer, original: memoryview) -> bool:
    """Tell whether `stored` decodes to `original`, byte for byte."""
    offset = 0
    try:
        for block in decoder.feed(stored):
            view = memoryview(block).cast("B")
            if bytes(view) != original[offset : offset + view.nbytes].tobytes():  # views compare item by item
                return False
            offset += view.nbytes
        decoder.finish()
    except CorruptError:
        return False
    return offset == original.nbytes
