"""Many nodes' pages as one list in the order of ids, with one page of each node in memory.

Pure but for the asking: rounds are asked for until every node has come to its end. In a round all that every node has
spoken about is given out, so each object comes once, with all its copies. Refuses to do: keeping anything.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Final

import msgspec

from transfer.errors import ConflictError
from transfer.pages import Page
from transfer.receipts import ReceiptBatch

END: Final = b"\xff" * 33  # above every id
Ask = Callable[[str, bytes], Awaitable[Page]]  # node id, the id that the page begins above


class Round(msgspec.Struct, frozen=True):
    """All copies of the objects of one stretch of ids, and what the nodes could not give: (node id, object id)."""

    batches: list[ReceiptBatch]
    damaged: list[tuple[str, bytes]]
    unreadable: list[tuple[str, bytes]]


async def merge(node_ids: Iterable[str], ask: Ask) -> AsyncIterator[Round]:
    """Yield the rounds.

    Raises:
        ConflictError: a node came back with another disk on the way.
        FascicleError: as `ask`.
    """
    pages: dict[str, Page] = {}
    needed, floor = {node_id: b"" for node_id in node_ids}, b""
    while needed:
        answers = await asyncio.gather(*(ask(node_id, after) for node_id, after in needed.items()))
        for page in answers:
            _check_disk(pages.get(page.node_id), page)
            pages[page.node_id] = page
        bound = bound_of(pages)
        yield cut(pages, answers, floor, bound)
        needed = {key: page.last for key, page in pages.items() if not page.complete and page.last <= bound}
        floor = bound


def bound_of(pages: Mapping[str, Page]) -> bytes:
    """Return the id up to which every node has said what it holds."""
    return min((page.last for page in pages.values() if not page.complete), default=END)


def cut(pages: Mapping[str, Page], new: Iterable[Page], floor: bytes, bound: bytes) -> Round:
    """Return what the pages say of the ids above `floor` up to `bound`, and the trouble that the `new` ones tell of."""
    batches = []
    for node_id, page in sorted(pages.items()):
        receipts = [receipt for receipt in page.receipts if floor < receipt.object_id <= bound]
        if receipts:
            batches.append(ReceiptBatch(node_id, page.incarnation, "", receipts))
    fresh = list(new)
    return Round(
        batches=batches,
        damaged=[(page.node_id, object_id) for page in fresh for object_id in page.damaged],
        unreadable=[(page.node_id, object_id) for page in fresh for object_id in page.unreadable],
    )


def _check_disk(before: Page | None, page: Page) -> None:
    if before is not None and before.incarnation != page.incarnation:
        raise ConflictError(f"the disk of {page.node_id} was replaced while it was listed; begin again")
