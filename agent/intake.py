"""Puts what the spool received into the queue, at once, and after a crash by a scan of the whole spool.

Refuses to do: losing count. Should it crash, its restart scans again; the queue passes over what it knows.
"""

import os
from collections.abc import Sequence
from typing import Final

from agent.items import SPOOL, File, NewItem, Priority
from agent.queue import Queue
from agent.spool import Spool, SpooledId

CHUNK: Final = 500


async def serve_intake(queue: Queue, spool: Spool, destinations: Sequence[str], priority: Priority) -> None:
    """Queue everything spooled for `destinations`, then everything as it is finished."""
    spooled = await spool.scan()
    while True:
        for at in range(0, len(spooled), CHUNK):
            await queue.add([new_item(each, destinations, priority) for each in spooled[at : at + CHUNK]])
        spooled = await spool.wait_finished()


def new_item(spooled: SpooledId, destinations: Sequence[str], priority: Priority) -> NewItem:
    """Return the queue's form; what the gateway is told as a name is ours, never a peer's."""
    file = File(os.fsencode(spooled.name), spooled.size_bytes, 0)
    return NewItem(SPOOL, file, f"{spooled.name}.dcm", priority, destinations)
