"""Codecs of strips: arrays of shape (rows, columns, components), uint8 or uint16, to bytes and back, losslessly.

A codec takes samples as the words that they are stored as: signs and bits above Bits Stored are none of its business.
numpy and imagecodecs are imported with the module of the codec, when it is first used. Refuses to do: choosing.
"""

import importlib
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from typing_extensions import Buffer

if TYPE_CHECKING:
    from transfer.encodings.strip import Strip


class Form(NamedTuple):
    """The shape of a strip, and the bytes of a sample."""

    rows: int
    columns: int
    components: int
    sample_bytes: int


class Codec(Protocol):
    """One lossless form of a strip."""

    def encode(self, strip: "Strip") -> bytes:
        """Return `strip` in this form, perhaps longer than it was.

        Raises:
            NotSuitableError: the library cannot.
        """

    def decode(self, stored: Buffer, form: Form) -> "Strip":
        """Return the strip of `form` (rows, columns, components), contiguous.

        What `stored` declares is compared with `form` before memory is taken.

        Raises:
            CorruptError: it is not this form of such a strip.
        """


class CodecName(NamedTuple):
    """Number in the container, module, class, and what the class is made with."""

    number: int
    module: str
    name: str
    settings: dict[str, int] = {}  # noqa: RUF012  # never changed


CODECS: Final = {  # from cheap to dense
    "shuffle-lz4": CodecName(1, "shuffle", "ShuffleLz4"),
    "gradient-pack": CodecName(6, "packed", "GradientPack"),
    "gradient-zstd": CodecName(2, "gradient", "GradientZstd"),
    "jxl-1": CodecName(3, "jpegxl", "JpegXl", {"effort": 1}),
    "htj2k": CodecName(4, "htj2k", "Htj2k"),
    "jpegls": CodecName(5, "jpegls", "JpegLs"),
    "jxl-3": CodecName(3, "jpegxl", "JpegXl", {"effort": 3}),
    "jxl-7": CodecName(3, "jpegxl", "JpegXl", {"effort": 7}),
}


@cache
def load_codec(encoding: str) -> Codec:
    """Return the codec of an image encoding; the first call imports numpy and imagecodecs (about 20 MB resident)."""
    named = CODECS[encoding]
    module = importlib.import_module(f"transfer.encodings.{named.module}")
    codec: Codec = getattr(module, named.name)(**named.settings)
    return codec
