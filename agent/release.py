"""Lets go of what every destination has: the spool's files are removed, watched files get what their rule says.

The order makes it safe to be killed anywhere: first the file, then the queue's row, and a row whose file is gone
is only dropped. Refuses to do: deciding that an item is complete (the queue does).
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from agent.after import Rule, clear
from agent.items import SPOOL, Item
from agent.queue import Queue
from agent.spool import Spool

CHUNK: Final = 500


async def serve_releases(queue: Queue, spool: Spool, rules: Mapping[str, Rule]) -> None:
    """Release complete items as they come."""
    while True:
        news = queue.news
        if not await release(queue, spool, rules):
            await news.wait()


async def release(queue: Queue, spool: Spool, rules: Mapping[str, Rule]) -> int:
    """Release the oldest complete items; returns how many. A folder without a rule any more keeps its files.

    Raises:
        StorageError, FullError: do it again later.
    """
    items = sorted(await queue.complete(CHUNK), key=_source)
    for source, group in itertools.groupby(items, key=_source):
        await _release_source(queue, spool, rules.get(source, Rule(source)), list(group))
    return len(items)


def _source(item: Item) -> str:
    return item.source


async def _release_source(queue: Queue, spool: Spool, rule: Rule, items: Sequence[Item]) -> None:
    if rule.folder == SPOOL:
        await spool.remove(os.fsdecode(item.file.path) for item in items)
        await queue.let_go(items, keep=False)
        return
    cleared = await trio.to_thread.run_sync(clear, items, rule)
    await queue.let_go(cleared.kept, keep=True)
    await queue.let_go(cleared.forgotten, keep=False)
