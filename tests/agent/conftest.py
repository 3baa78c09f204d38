"""What several tests of the agent begin with."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.queue import Queue, open_queue


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with open_queue(tmp_path / "queue.db") as opened:
        yield opened
