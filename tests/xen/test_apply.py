"""Apply at the XenAPI server: from a bare pool to nodes, up and down, and what stands in the way."""

import pytest

from tests.xen.kit import Site
from transfer.errors import FullError, SettingsError, UnauthorisedError


async def test_a_bare_pool_gets_its_nodes_spread_over_its_hosts(site: Site) -> None:
    report = await site.apply(site.file(count=7))
    site.assert_exactly(7)
    assert sorted(site.per_host()) == [2, 2, 3]
    assert report.rounds == 1
    assert report.steps == {"make": 7, "configure": 7, "begin": 7, "await": 7}


async def test_a_second_time_nothing_is_done(site: Site) -> None:
    await site.apply(site.file(count=2))
    before = dict(site.nodes())
    report = await site.apply(site.file(count=2))
    assert (report.steps, report.rounds) == ({}, 0)
    assert site.nodes() == before
