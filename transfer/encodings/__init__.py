"""Encodings: the forms in which an object travels and rests; the original is always given back bit for bit.

An encoding is named in the object's header. Each gives `encode` for an object in memory, an `encoder` for one that is
read block by block, and a `decoder` whose output is bounded by the size that the header promises, so that no
stored bytes, however made, take more memory than they declare. `ENCODINGS` take any object; `IMAGE_ENCODINGS` (from
cheap to dense) only uncompressed images, and raise NotSuitableError for all else. Refuses to do: choosing
(`transfer.choice`), I/O. Decision and figures: docs/encodings.md.
"""

from typing import Final

from transfer.encodings.codecs import CODECS
from transfer.encodings.image import ImageDecoder, ImageEncoding
from transfer.encodings.interface import BLOCK_BYTES, Decoder, Encoder, Encoding, OpenDecoder
from transfer.encodings.proof import encode_checked
from transfer.encodings.raw import Raw
from transfer.encodings.zstandard import Zstd
from transfer.errors import SettingsError

ENCODINGS: Final[dict[str, Encoding]] = {encoding.name: encoding for encoding in (Raw(), Zstd())}
IMAGE_ENCODINGS: Final = {name: ImageEncoding(name) for name in CODECS}

__all__ = [
    "BLOCK_BYTES",
    "ENCODINGS",
    "IMAGE_ENCODINGS",
    "Decoder",
    "Encoder",
    "Encoding",
    "ImageDecoder",
    "ImageEncoding",
    "OpenDecoder",
    "encode_checked",
    "get_encoding",
    "open_decoder_here",
]


def get_encoding(name: str) -> Encoding:
    """Return the encoding called `name`.

    Raises:
        SettingsError: no such encoding.
    """
    encoding = ENCODINGS.get(name) or IMAGE_ENCODINGS.get(name)
    if encoding is None:
        raise SettingsError(f"unknown encoding `{name}`; known: {', '.join((*ENCODINGS, *IMAGE_ENCODINGS))}")
    return encoding


def open_decoder_here(encoding: str, size_bytes: int, _: str) -> Decoder:
    """Return a decoder that works in this process; what a peer made belongs in another (`transfer.decoders`)."""
    return get_encoding(encoding).decoder(size_bytes)
