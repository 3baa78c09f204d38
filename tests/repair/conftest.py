"""What the tests of nodes have, and the cluster's own openers."""

from tests.cluster.conftest import fresh, series
from tests.nodes.conftest import node, secure_node, site

__all__ = ["fresh", "node", "secure_node", "series", "site"]
