"""Running clusters: one that a module shares, for what leaves it whole, and fresh ones for what does not."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from bench.cluster import Cluster, open_cluster
from bench.generate import write_series

Opener = Callable[..., AbstractContextManager[Cluster]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with TLS, shared by the tests of a module."""
    with open_cluster(tmp_path_factory.mktemp("shared"), nodes=2) as running:
        yield running


@pytest.fixture
def fresh(tmp_path: Path) -> Opener:
    """Open a cluster of one's own: `with fresh(nodes=5, replicas=2) as cluster`."""
    return partial(open_cluster, tmp_path / "cluster")


@pytest.fixture
def series(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of 8 small images that no other test has."""
    folder = tmp_path / "series"
    write_series(folder, 8, seed=seed_of(request.node.nodeid), rows=64, columns=64)
    return folder


def seed_of(text: str) -> int:
    """Return a seed that is the same in every run of the same test."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
