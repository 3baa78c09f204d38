"""Fixtures: the cluster's identities (once), a running gateway, and its nodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.free import free_port
from tests.gateway.kit import NODE_IDS, Gateway, Identities, Node, closing_all, settings


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    running = Gateway(identities, settings(identities, tmp_path / "gateway", reserve_timeout_s=1.0))
    yield running
    running.stop()


@pytest.fixture
def nodes(gateway: Gateway, identities: Identities) -> Iterator[list[Node]]:
    key = identities.public_key("gateway-1")
    with closing_all([Node(identities, node_id, key) for node_id in NODE_IDS]) as made:
        for node in made:
            node.beat(gateway)
        yield made


@pytest.fixture(scope="package")
def shared(identities: Identities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, list[Node]]]:
    """One gateway with its nodes for all tests that leave nothing visible behind: those of refusals."""
    running = Gateway(identities, settings(identities, tmp_path_factory.mktemp("shared"), silent_after_s=3600))
    key = identities.public_key("gateway-1")
    with closing_all([Node(identities, node_id, key) for node_id in NODE_IDS]) as made:
        for node in made:
            node.beat(running)
        yield running, made
    running.stop()


@pytest.fixture
def free_ports() -> tuple[int, int]:
    """Two ports that were free a moment ago, for a gateway that must come back on the same."""
    return free_port(), free_port()
