"""One stored object on its way out, checked before its last byte leaves: nobody ever gets a whole wrong object.

Refuses to do: decoding; what happens to a damaged file (`nodes.store` quarantines it).
"""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from blake3 import blake3

from nodes.objectfile import HEADER_BYTES, Header, Record, decode_header
from transfer import disk
from transfer.errors import CorruptError

BLOCK_BYTES: Final = 1 << 20
LOADED_BYTES: Final = 4 << 20


def read_header(descriptor: int, object_id: str) -> Header:
    """Read and check the header of an object's open file, and the file's length (blocks).

    Raises:
        CorruptError: damaged, cut, or the file of another object.
        StorageError: the disk failed, or the file is of a newer release.
    """
    header = decode_header(disk.read_at(descriptor, HEADER_BYTES, 0))
    _check_header(header, object_id, disk.size_of(descriptor))
    return header


def _check_header(header: Header, object_id: str, file_bytes: int) -> None:
    record = header.record
    if record.object_id != object_id or header.partial or record.stored_bytes != file_bytes - HEADER_BYTES:
        raise CorruptError(f"{object_id}: its file is cut, or another object's")


class StoredReader:
    """Iterate the stored bytes in blocks of at most 1 MiB; close it, or use it as a context manager.

    An object of up to 4 MiB is `loaded`: read and checked whole before the first block, so that iterating does not
    block. Of a larger one each step reads a block, and the last is given out only after the digest is found right.
    """

    def __init__(
        self, descriptor: int, object_id: str, on_corrupt: Callable[[int], None], *, from_disk: bool = False
    ) -> None:
        """Take over `descriptor`; `on_corrupt` gets it, still open, before a CorruptError is raised.

        `from_disk`: what the kernel keeps of the file in memory is not asked.

        Raises:
            CorruptError, StorageError: as `read_header`, or wrong bytes.
        """
        self._descriptor: int | None = descriptor
        self._on_corrupt = on_corrupt
        self._object_id = object_id
        try:
            if from_disk:
                disk.forget_cached(descriptor)
            self._blocks = self._open(descriptor)
        except CorruptError:
            try:
                on_corrupt(descriptor)
            finally:
                self.close()  # nobody gets this reader, to close it
            raise
        except BaseException:
            self.close()
            raise

    def _open(self, descriptor: int) -> Iterator[memoryview]:
        file_bytes = disk.size_of(descriptor)
        self.loaded = file_bytes <= HEADER_BYTES + LOADED_BYTES
        start = disk.read_at(descriptor, file_bytes if self.loaded else HEADER_BYTES, 0)
        header = decode_header(start)
        _check_header(header, self._object_id, file_bytes)
        self.record: Record = header.record
        if not self.loaded:
            return self._read_blocks(descriptor, header)
        payload = start[HEADER_BYTES:]
        self._judge(blake3(payload).digest(), header)
        return (payload[offset : offset + BLOCK_BYTES] for offset in range(0, payload.nbytes, BLOCK_BYTES))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> memoryview:
        """Return the next block.

        Raises:
            CorruptError: the bytes are wrong; the object has been quarantined.
            StorageError: the disk failed.
        """
        try:
            return next(self._blocks)
        except CorruptError:
            if self._descriptor is not None:
                self._on_corrupt(self._descriptor)
            raise

    def _read_blocks(self, descriptor: int, header: Header) -> Iterator[memoryview]:
        hasher = blake3()
        held: memoryview | None = None
        for offset in range(0, header.record.stored_bytes, BLOCK_BYTES):
            block = disk.read_at(
                descriptor, min(BLOCK_BYTES, header.record.stored_bytes - offset), HEADER_BYTES + offset
            )
            hasher.update(block)
            if held is not None:
                yield held
            held = block
        self._judge(hasher.digest(), header)
        if held is not None:
            yield held

    def _judge(self, digest: bytes, header: Header) -> None:
        if digest != header.stored_digest:
            raise CorruptError(f"{self._object_id}: its stored bytes are damaged")

    def close(self) -> None:
        """Close the file; harmless when closed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            disk.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
