"""Pages of many nodes come together so that each object comes once, in order, with all its copies."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.merging import Round, merge
from transfer.errors import ConflictError, UnreachableError
from transfer.objects import Identity
from transfer.pages import Page
from transfer.receipts import Receipt

IDS = [bytes([number]) * 32 for number in range(1, 30)]


def page_of(node_id: str, held: list[bytes], after: bytes, size: int, damaged: frozenset[bytes], life: str) -> Page:
    """Answer as a node does that holds `held`, with pages of `size`."""
    rest = [object_id for object_id in held if object_id > after]
    ids, complete = rest[:size], len(rest) <= size
    receipts = [Receipt(one, 1, 1, "raw", [node_id], Identity()) for one in ids if one not in damaged]
    last = ids[-1] if ids else after
    return Page(node_id, life, b"", after, last, complete, receipts, [one for one in ids if one in damaged], [])


async def gather(held: dict[str, list[bytes]], sizes: dict[str, int], damaged: frozenset[bytes] = frozenset()) -> list:
    async def ask(node_id: str, after: bytes) -> Page:
        return page_of(node_id, held[node_id], after, sizes[node_id], damaged, "life")

    return [found async for found in merge(held, ask)]


def ids_of(found: Round) -> Counter[bytes]:
    return Counter(receipt.object_id for batch in found.batches for receipt in batch.receipts)


@given(
    held=st.lists(st.sets(st.sampled_from(IDS)), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 7), min_size=4, max_size=4),
    damaged=st.frozensets(st.sampled_from(IDS), max_size=3),
)
def test_each_object_comes_once_with_all_copies_in_order(
    held: list[set[bytes]], sizes: list[int], damaged: frozenset[bytes]
) -> None:
    by_node = {f"node-{number}": sorted(ids) for number, ids in enumerate(held)}
    size_of = dict(zip(by_node, sizes, strict=False))
    rounds = asyncio.run(gather(by_node, size_of, damaged))
    counts = [ids_of(found) for found in rounds]
    assert sum(counts, Counter()) == Counter(one for ids in held for one in ids if one not in damaged)
    assert sum(map(len, counts)) == len(set().union(*held) - damaged)  # never in two rounds
    order = [one for count in counts for one in sorted(count)]
    assert order == sorted(order)
    told = Counter(one for found in rounds for _, one in found.damaged)
    assert told == Counter(one for ids in held for one in ids if one in damaged)


def test_no_more_than_a_page_of_each_node_is_asked_for_at_once() -> None:
    """A node that is far ahead is not asked again before the others have come as far."""
    held = {"a": IDS[:3], "b": IDS}
    asked: list[tuple[str, bytes]] = []

    async def ask(node_id: str, after: bytes) -> Page:
        asked.append((node_id, after))
        return page_of(node_id, held[node_id], after, 2 if node_id == "a" else 20, frozenset(), "life")

    async def scenario() -> list:
        return [found async for found in merge(held, ask)]

    asyncio.run(scenario())
    assert asked == [("a", b""), ("b", b""), ("a", IDS[1]), ("b", IDS[19])]


def test_a_disk_that_is_replaced_on_the_way_ends_it() -> None:
    lives = iter(["first", "second"])

    async def ask(node_id: str, after: bytes) -> Page:
        return page_of(node_id, IDS, after, 5, frozenset(), next(lives))

    async def scenario() -> None:
        async for _ in merge(["a"], ask):
            pass

    with pytest.raises(ConflictError, match="replaced"):
        asyncio.run(scenario())


def test_a_node_that_goes_away_ends_it() -> None:
    async def ask(node_id: str, after: bytes) -> Page:
        if node_id == "b":
            raise UnreachableError("gone")
        return page_of(node_id, IDS, after, 5, frozenset(), "life")

    async def scenario() -> None:
        async for _ in merge(["a", "b"], ask):
            pass

    with pytest.raises(UnreachableError):
        asyncio.run(scenario())
