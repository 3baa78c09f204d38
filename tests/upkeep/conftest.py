"""What the tests of nodes and clusters have."""

from tests.cluster.conftest import fresh, series
from tests.gateway.conftest import identities
from tests.nodes.conftest import node, site

__all__ = ["fresh", "identities", "node", "series", "site"]
