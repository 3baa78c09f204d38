"""kill -9 at the steps of apply, and apply again: exactly as many nodes, none doubled, none leaked.

Here one node at every fifth of its calls, and eight at random; `make xen-kills` does it at every call, and with thirty.
"""

import random

from tests.xen.kills import forget_killed, killed_each, open_killer
from tests.xen.kit import Site


def test_killed_in_the_middle_of_a_node_s_coming_and_going(site: Site) -> None:
    with open_killer(site) as killer:
        coming = killed_each(killer, 1, 0, first=2, stride=5)
        going = killed_each(killer, 0, 1, first=3, stride=5)
    assert coming >= 3
    assert going >= 1
    assert sum(killer.kills.values()) == coming + going


def test_eight_side_by_side_killed_at_random(site: Site) -> None:
    site.pool.delays.clone = 0.02
    chance = random.Random(20261125)
    site.file(count=8)
    with open_killer(site) as killer:
        for _ in range(4):
            killer.run(chance.randrange(1, 60), before=chance.random() < 0.5)
            site.nodes()
        assert killer.run() == 0
    forget_killed(site)
    site.assert_exactly(8)
    assert sorted(site.per_host()) == [2, 3, 3]
