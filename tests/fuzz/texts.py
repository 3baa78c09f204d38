"""Texts and images as targets: lines of an audit trail, tokens of invitations, and image encodings through a child."""

import contextlib
import struct
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import trail
from transfer.decoders.pool import Pool
from transfer.encodings import IMAGE_ENCODINGS
from transfer.errors import CorruptError, FascicleError, SettingsError
from transfer.joining import PREFIX, Token, decode_token, encode_token

KEY = Ed25519PrivateKey.from_private_bytes(b"trai" * 8)
NAMES = list(IMAGE_ENCODINGS)
IMAGE_HEAD = struct.Struct("<BL")  # encoding, and size of the original
IMAGE_BYTES_MAX = 1 << 20


def audit(data: bytes) -> None:
    """Bytes as an audit trail: it is sound only if each line is what the gateway would have written."""
    lines = data.splitlines(keepends=True)
    try:
        head = trail.verify(lines, KEY.public_key())
    except CorruptError:
        pass
    else:
        assert head.count == len(lines)
        for line in lines:
            assert KEY.sign(trail.CONTEXT + line[:64]).hex().encode() == line[65:193]
    with contextlib.suppress(CorruptError):  # a refusal is fine, any other error is found
        trail.last(data, KEY.public_key())
    with contextlib.suppress(SettingsError):  # as above
        trail.read_anchor(data.decode(errors="replace"))


def token(data: bytes) -> None:
    """Bytes as the text of a token, and as what its text encodes: it reads as it would be written, or not at all."""
    for text in (data.decode(errors="replace"), PREFIX + data.hex()):
        with contextlib.suppress(SettingsError):  # a refusal is fine, any other error is found
            found = decode_token(text)
            assert isinstance(found, Token)
            assert decode_token(encode_token(found)) == found


class Images:
    """Bytes as the stored form of an image: decoded by a child, to the promised size or not at all."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.children_ended = 0

    def __call__(self, data: bytes) -> None:
        if len(data) < IMAGE_HEAD.size:
            return
        number, size_bytes = IMAGE_HEAD.unpack_from(data)
        decoder = self._pool.open_decoder(NAMES[number % len(NAMES)], size_bytes % IMAGE_BYTES_MAX, "fuzz")
        given = 0
        try:
            for block in decoder.feed(memoryview(data)[IMAGE_HEAD.size :]):
                given += memoryview(block).nbytes
                assert given <= size_bytes
            decoder.finish()
        except FascicleError as error:
            self.children_ended += "ended" in error.message
            return
        assert given == size_bytes % IMAGE_BYTES_MAX


@contextlib.contextmanager
def open_images() -> Iterator[Images]:
    pool = Pool(1)
    try:
        pool.start()
        yield Images(pool)
    finally:
        pool.close()


TEXTS: dict[str, Callable[[bytes], None]] = {"audit": audit, "token": token}
