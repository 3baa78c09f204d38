"""A pool for each test that asks for one; waits are short."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.xen.kit import Site, open_site
from xen import apply, steps


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ASK_EVERY_S", 0.02)
    monkeypatch.setattr(apply, "PAUSE_S", 0.02)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as opened:
        yield opened
