"""The check of an object as its stored bytes come by: their digest, and that of the original they decode to.

Keeps the first bytes of the original, from which the identity is read, and nothing else: a header that is longer than
these is walked over as it comes by. Refuses to do: I/O.
"""

import contextlib
from typing import Final

from blake3 import blake3
from typing_extensions import Buffer

from nodes.objectfile import RAW
from transfer.dicom import IdentityReader
from transfer.encodings import OpenDecoder, open_decoder_here
from transfer.errors import CorruptError, NotDicomError, TruncatedError
from transfer.objects import Identity

HEAD_BYTES: Final = 1 << 20  # nearly all identities end far within this; long lists of references may stand before one


class Digests:
    """Feed all stored bytes in order, then `finish` once; `object_id` "": whichever the bytes give."""

    def __init__(
        self, object_id: str, size_bytes: int, encoding: str, open_decoder: OpenDecoder = open_decoder_here
    ) -> None:
        """`encoding` must be known (`transfer.encodings`), else its error is raised."""
        self.object_id = object_id
        self._size_bytes = size_bytes
        decoder = open_decoder(encoding, size_bytes, object_id)
        self._decoder = None if encoding == RAW else decoder
        self._stored = blake3()
        self._original = self._stored if self._decoder is None else blake3()
        self._original_bytes = 0
        self._head: list[memoryview] = []
        self._head_bytes = 0
        self._reader: IdentityReader | None = None  # once the head is whole, unless it is not DICOM

    def feed(self, payload: memoryview) -> None:
        """Take the next stored bytes; the buffer may be kept until `identity` is asked for.

        Raises:
            CorruptError: they do not decode, or to more than was announced.
        """
        self._stored.update(payload)
        if self._decoder is None:
            self._take(payload)
            return
        for block in self._decoder.feed(payload):
            self._original.update(block)
            self._take(block)

    def finish(self) -> bytes:
        """Return the digest of the stored bytes, after checking that they are the object.

        Raises:
            CorruptError: they are not.
        """
        if self._decoder is not None:
            self._decoder.finish()
        digest = self._original.hexdigest()
        if self._original_bytes != self._size_bytes or digest != (self.object_id or digest):
            raise CorruptError(f"{self.object_id}: the bytes received are not this object; send it again")
        self.object_id = digest
        return self._stored.digest()

    def identity(self) -> Identity:
        """Return what the original's first bytes say it is; what is not DICOM is any file. Once: they are let go."""
        if self._head_bytes < HEAD_BYTES:
            self._read_head()
        try:
            return self._reader.finish() if self._reader else Identity(any_file=True)
        except (NotDicomError, TruncatedError):
            return Identity(any_file=True)

    def _take(self, block: Buffer) -> None:
        view = memoryview(block).cast("B")
        self._original_bytes += view.nbytes
        if self._original_bytes > self._size_bytes:
            raise CorruptError(f"{self.object_id}: more bytes than the {self._size_bytes} that were announced")
        if self._head_bytes < HEAD_BYTES:
            self._head.append(view[: HEAD_BYTES - self._head_bytes])
            self._head_bytes += self._head[-1].nbytes
            if self._head_bytes < HEAD_BYTES:
                return
            view = view[self._head[-1].nbytes :]
            self._read_head()
        self._read_on(view)

    def _read_head(self) -> None:
        head = self._head[0] if len(self._head) == 1 else memoryview(b"".join(self._head))
        self._head = []  # parts of decoded strips, which would stay whole while the object waits for its flush
        with contextlib.suppress(NotDicomError, TruncatedError):  # any file, then, which its identity says
            self._reader = IdentityReader(head)

    def _read_on(self, view: memoryview) -> None:
        try:
            if self._reader is not None:
                self._reader.feed(view)
        except NotDicomError:
            self._reader = None
