"""One set of identities for all tests of nodes; nodes themselves are each test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.nodes.kit import Running, Site, open_node


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture
async def node(site: Site, tmp_path: Path) -> AsyncIterator[Running]:
    async with open_node(site, tmp_path) as running:
        yield running


@pytest.fixture
async def secure_node(site: Site, tmp_path: Path) -> AsyncIterator[Running]:
    async with open_node(site, tmp_path, secure=True) as running:
        yield running
