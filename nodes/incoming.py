"""One object on its way in: its first MiB is kept in memory, more goes to a temporary file as it comes.

Small objects thus cost no call into the disk of their own: the group commit writes them. A resumable upload keeps its
file under the object's name when the sender goes away, and goes on where it stopped. Refuses to do: making anything
durable or visible (`nodes.store`).
"""

import mmap
from collections.abc import Callable, Sequence
from threading import local
from typing import Final

from typing_extensions import Buffer

from nodes.digests import Digests
from nodes.objectfile import HEADER_BYTES, Header, Record, decode_header, encode_header, fit_identity
from nodes.room import Room
from transfer import disk
from transfer.buffers import with_front
from transfer.durable import Finished
from transfer.encodings import OpenDecoder, open_decoder_here
from transfer.errors import CorruptError, FascicleError
from transfer.objects import Identity

MEMORY_BYTES: Final = 1 << 20
PIECES_MAX: Final = 256  # tiny ones take more memory than their bytes
WRITEBACK_BYTES: Final = 8 << 20
BLOCK_BYTES: Final = 1 << 20
SPARE_BYTES: Final = HEADER_BYTES + 4096  # of a file above its payload: the header, the last block
NO_DIGEST: Final = bytes(32)
DIRECT_FROM_BYTES: Final = 64 << 10  # smaller files cost less together, by way of the page cache
DIRECT_TO_BYTES: Final = MEMORY_BYTES + HEADER_BYTES
SCRATCH_BYTES: Final = DIRECT_TO_BYTES + disk.ALIGNED_BYTES
_thread = local()


def stored_bytes_max(size_bytes: int) -> int:
    """Return how long an encoding of `size_bytes` may be; one that grows more would have been sent raw."""
    return size_bytes + size_bytes // 64 + 4096


class Incoming:
    """One upload, made by `Store.begin`, ended by `Store.commit` or `abandon`; for one thread at a time."""

    def __init__(
        self,
        object_id: str,
        size_bytes: int,
        encoding: str,
        *,
        path: str,
        room: Room,
        on_end: Callable[[], None],
        open_decoder: OpenDecoder = open_decoder_here,
    ) -> None:
        self.object_id = object_id
        self.size_bytes = size_bytes
        self.encoding = encoding
        self.stored_bytes = 0
        self.offset_bytes = 0  # how many stored bytes were here when the upload began
        self.resumable = False
        self.ended = False
        self._open_decoder = open_decoder
        self._digests = Digests(object_id, size_bytes, encoding, open_decoder)
        self._path, self._room, self._on_end = path, room, on_end
        self._pending: list[memoryview] = []
        self.pending_bytes = 0  # of these, in memory
        self._descriptor: int | None = None
        self._written_bytes = 0  # of the file, without its header
        self._promised_bytes = size_bytes + SPARE_BYTES
        room.promise(self._promised_bytes)

    def fits(self, length: int) -> bool:
        """Tell whether `write` of so many bytes returns at once; otherwise it blocks and belongs in a thread."""
        return self.pending_bytes + length <= MEMORY_BYTES and len(self._pending) < PIECES_MAX

    def write(self, payload: Buffer) -> None:
        """Take the next stored bytes; the buffer belongs to the store from now on and must not change.

        Raises:
            CorruptError: more than was announced, or bytes that do not decode.
            StorageError, FullError: the temporary file failed. After any error only `abandon` is left.
        """
        view = memoryview(payload).cast("B")
        if self.stored_bytes + view.nbytes > stored_bytes_max(self.size_bytes):
            self.resumable = False
            raise CorruptError(f"{self.object_id}: more bytes than the {self.size_bytes} that were announced")
        if not self.fits(view.nbytes):
            self._spill()
        self._pending.append(view)
        self.pending_bytes += view.nbytes
        self.stored_bytes += view.nbytes

    def open_partial(self) -> None:
        """Make the upload resumable: go on with the file that is there if it fits, else start it (blocks).

        Raises:
            StorageError, FullError
        """
        self._descriptor = disk.open_or_create(self._path)
        self.resumable = True
        if not self._fits_partial(self._descriptor) or not self._reread(self._descriptor):
            disk.truncate(self._descriptor, 0)
            disk.write_at(self._descriptor, [encode_header(self._header(NO_DIGEST, partial=True))], 0)

    def finish(self, final_path: Callable[[str], str]) -> tuple[Finished, Record]:
        """Check the object and write all of it to its temporary file, for a group's publishing (blocks).

        `final_path` gives the place of an object by its id, which an upload without a name has from now on.

        Raises:
            CorruptError: the bytes are not the object.
            StorageError, FullError: the temporary file failed. After any error only `abandon` is left.
        """
        try:
            for view in self._pending:
                self._digests.feed(view)
            stored_digest = self._digests.finish()
            self.object_id = self._digests.object_id
            header = self._header(stored_digest, identity=self._digests.identity())
            opened_early = self._descriptor is not None
            self._write_whole(encode_header(header))
        except FascicleError:
            self.resumable = False
            raise
        return Finished(self._open(), self._path, final_path(self.object_id), opened_early), header.record

    def abandon(self) -> None:
        """End the upload and remove its file, or keep what came of a resumable one; harmless when ended (blocks)."""
        if self.ended:
            return
        try:
            if self.resumable:
                self._keep_partial()
            elif self._descriptor is not None:
                disk.unlink(self._path)
        finally:
            self.end()

    def _keep_partial(self) -> None:
        """Write what came of a resumable upload; what came wrong is not worth keeping."""
        try:
            self._spill()
        except CorruptError:
            disk.unlink(self._path)

    def end(self) -> None:
        """Give back memory, room and descriptor; harmless when ended."""
        if self.ended:
            return
        self.ended = True
        self._pending.clear()
        self._room.give_back(self._promised_bytes)
        try:
            if self._descriptor is not None:
                disk.close(self._descriptor)
        finally:
            self._on_end()

    def _header(self, digest: bytes, *, identity: Identity | None = None, partial: bool = False) -> Header:
        record = Record(
            object_id=self.object_id,
            size_bytes=self.size_bytes,
            stored_bytes=0 if partial else self.stored_bytes,
            encoding=self.encoding,
            identity=fit_identity(identity) if identity else Identity(),
        )
        return Header(record=record, stored_digest=digest, partial=partial)

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = disk.create(self._path)
        return self._descriptor

    def _spill(self) -> None:
        """Check and write what is in memory."""
        try:
            for view in self._pending:
                self._digests.feed(view)
            _write(self._open(), self._pending, HEADER_BYTES + self._written_bytes)
            self._note_written(self.pending_bytes)
        except FascicleError:
            self.resumable = False
            raise
        self._pending, self.pending_bytes = [], 0

    def _write_whole(self, header: bytes) -> None:
        descriptor = self._open()
        if self._written_bytes:
            _write(descriptor, self._pending, HEADER_BYTES + self._written_bytes)
            disk.write_at(descriptor, [header], 0)
        elif len(self._pending) == 1 and (whole := with_front(self._pending[0], header)) is not None:
            disk.write_whole(descriptor, whole)
        else:
            _write(descriptor, [header, *self._pending], 0)
        self._pending, self.pending_bytes = [], 0

    def _note_written(self, length: int) -> None:
        before, self._written_bytes = self._written_bytes, self._written_bytes + length
        kept = min(length, self._promised_bytes)
        self._promised_bytes -= kept
        self._room.give_back(kept)
        if before // WRITEBACK_BYTES != self._written_bytes // WRITEBACK_BYTES:
            disk.start_writeback(self._open(), 0, HEADER_BYTES + self._written_bytes)

    def _fits_partial(self, descriptor: int) -> bool:
        try:
            header = decode_header(disk.read_at(descriptor, HEADER_BYTES, 0))
        except CorruptError:
            return False
        return header == self._header(NO_DIGEST, partial=True)

    def _reread(self, descriptor: int) -> bool:
        """Check again what is in the file; False when it cannot be the object's beginning."""
        length = disk.size_of(descriptor) - HEADER_BYTES
        if length > stored_bytes_max(self.size_bytes):
            return False
        try:
            for offset in range(0, length, BLOCK_BYTES):
                self._digests.feed(disk.read_at(descriptor, min(BLOCK_BYTES, length - offset), HEADER_BYTES + offset))
        except CorruptError:
            self._digests = Digests(self.object_id, self.size_bytes, self.encoding, self._open_decoder)
            return False
        self.stored_bytes = self.offset_bytes = length
        self._note_written(length)
        return True


def _write(descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
    if DIRECT_FROM_BYTES <= sum(memoryview(buffer).nbytes for buffer in buffers) <= DIRECT_TO_BYTES:
        disk.write_past_cache(descriptor, buffers, offset, _scratch())
    else:
        disk.write_at(descriptor, buffers, offset)


def _scratch() -> mmap.mmap:
    """Return this thread's aligned buffer."""
    if not hasattr(_thread, "scratch"):
        _thread.scratch = mmap.mmap(-1, SCRATCH_BYTES)
    scratch: mmap.mmap = _thread.scratch
    return scratch
