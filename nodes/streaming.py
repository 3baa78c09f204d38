"""Stored bytes as an asynchronous stream: large objects are read in a thread, loaded ones given out at once."""

from collections.abc import AsyncGenerator

import trio

from nodes.reading import StoredReader


async def blocks_of(reader: StoredReader) -> AsyncGenerator[memoryview, None]:
    """Yield the reader's blocks, each at most 1 MiB.

    Raises:
        CorruptError, StorageError: before the last block.
    """
    if reader.loaded:
        for block in reader:
            yield block
        return
    while (loaded := await trio.to_thread.run_sync(_next, reader)) is not None:
        yield loaded


def _next(reader: StoredReader) -> memoryview | None:
    for block in reader:
        return block
    return None
