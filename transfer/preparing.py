"""Preparing: files become objects, read, judged and named by threads, within a budget of memory.

Small files share one call into a thread. Refuses to do: offering, sending.
"""

from collections.abc import AsyncIterable
from typing import Final

import trio

from transfer import inspection
from transfer.errors import UnusableFileError
from transfer.inspection import BODY_BYTES_MAX, Inspected, SourceFile
from transfer.ledger import Ledger
from transfer.work import Item

BATCH_FILES: Final = 32
BATCH_BYTES: Final = 2 << 20  # larger ones come so late that flows run dry at the start of a transfer on a fast link
INSPECTORS: Final = 2

Batch = list[SourceFile]


async def prepare(
    files: AsyncIterable[SourceFile], ledger: Ledger, items: trio.MemorySendChannel[Item], *, any_file: bool
) -> None:
    """Inspect all `files` and send what is usable to `items`, which is closed at the end."""
    send_batch, receive_batch = trio.open_memory_channel[Batch](0)
    async with items, trio.open_nursery() as inspectors:
        for _ in range(INSPECTORS):
            inspectors.start_soon(_inspect_all, receive_batch.clone(), ledger, items, any_file)
        receive_batch.close()
        async with send_batch:
            await _gather(files, ledger, send_batch)


async def _gather(files: AsyncIterable[SourceFile], ledger: Ledger, batches: trio.MemorySendChannel[Batch]) -> None:
    batch: Batch = []
    size_bytes = 0
    async for file in files:
        weight = _body_bytes(file.size_bytes)
        if batch and (len(batch) >= BATCH_FILES or size_bytes + weight > BATCH_BYTES):
            await batches.send(batch)
            batch, size_bytes = [], 0
        await ledger.budget.take(weight)
        batch.append(file)
        size_bytes += weight
    if batch:
        await batches.send(batch)


async def _inspect_all(
    batches: trio.MemoryReceiveChannel[Batch], ledger: Ledger, items: trio.MemorySendChannel[Item], any_file: bool
) -> None:
    async with batches:
        async for batch in batches:
            for source, inspected in await trio.to_thread.run_sync(_inspect_batch, batch, any_file):
                kept = 0 if isinstance(inspected, UnusableFileError) else len(inspected.body or b"")
                ledger.budget.give_back(_body_bytes(source.size_bytes) - kept)
                if isinstance(inspected, UnusableFileError):
                    ledger.fail_source(source, inspected)
                else:
                    await items.send(Item(inspected.object_id, inspected.size_bytes, [source], inspected.body))


def _inspect_batch(batch: Batch, any_file: bool) -> list[tuple[SourceFile, Inspected | UnusableFileError]]:
    inspected: list[tuple[SourceFile, Inspected | UnusableFileError]] = []
    for source in batch:
        try:
            inspected.append((source, inspection.inspect(source.path, any_file=any_file)))
        except UnusableFileError as error:
            inspected.append((source, error))
    return inspected


def _body_bytes(size_bytes: int) -> int:
    """Return how much memory a file of this size takes while it waits."""
    return size_bytes if size_bytes <= BODY_BYTES_MAX else 0
