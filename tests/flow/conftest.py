"""Fixtures: a gateway whose data plane is plain, and a client of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.gateway.kit import Gateway, Identities, settings
from transfer.client import GatewayClient


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    running = Gateway(identities, settings(identities, tmp_path / "gateway", plain=True, silent_after_s=3600))
    yield running
    running.stop()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(gateway.identities.credentials("ws-1", gateway.port), patience_s=10) as opened:
        yield opened
