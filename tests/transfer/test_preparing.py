"""Files are read ahead, but not before it is known that they are wanted, and never further than memory goes."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from transfer.inspection import SourceFile
from transfer.ledger import FIRST_BYTES_MAX, Ledger
from transfer.outcomes import Counters
from transfer.preparing import BATCH_BYTES, prepare
from transfer.work import Item

SIZE_BYTES = 1 << 20


async def each(folder: Path, count: int) -> AsyncIterator[SourceFile]:
    for number in range(count):
        path = folder / str(number)
        path.write_bytes(number.to_bytes(4) * (SIZE_BYTES // 4))
        yield SourceFile(path, path.name, SIZE_BYTES)


@pytest.mark.parametrize("unusable", [0, 30])
async def test_only_the_first_files_are_read_before_the_transfer_is_open(unusable: int, tmp_path: Path) -> None:
    assert FIRST_BYTES_MAX >= BATCH_BYTES  # else a batch that is half full would wait for itself
    ledger = Ledger(Counters(), patience_s=1.0)
    send, receive = trio.open_memory_channel[Item](100)
    came: list[Item] = []

    async def files() -> AsyncIterator[SourceFile]:
        for number in range(unusable):
            yield SourceFile(tmp_path / "gone", f"gone {number}", SIZE_BYTES)
        async for file in each(tmp_path, 40):
            yield file

    async def collect() -> None:
        async for item in receive:
            came.append(item)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            nursery.start_soon(partial(prepare, files(), ledger, send, any_file=True))
            while not came:
                await trio.sleep(0.01)
            await trio.sleep(0.3)
            assert len(came) <= FIRST_BYTES_MAX // SIZE_BYTES
            ledger.budget.widen()  # as the sender does when the gateway has answered
    assert len({item.object_id for item in came}) == 40
    assert len(ledger.outcomes) == unusable
