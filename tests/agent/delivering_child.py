"""A program for test_kill: an agent whose destination is a folder, written in the durable order, slowly."""

import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

from agent.delivery import Sent
from agent.items import Item, Priority
from agent.settings import load_settings
from agent.tree import serve_agent
from transfer.durable import write_file_durably
from transfer.objects import object_id


async def main(folder: Path) -> None:
    async def deliver(files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        sent = []
        async for item in files:
            data = item.location(folder / "spool" / "ready").read_bytes()
            write_file_durably(folder / "store" / object_id(data), data)
            sent.append(Sent(item.item_id, object_id(data)))
            await trio.sleep(0.001)
        return sent

    await serve_agent(load_settings(folder / "agent.toml"), {"cloud": deliver})


trio.run(main, Path(sys.argv[1]))
