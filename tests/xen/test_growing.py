"""Growth at the XenAPI server: disks fill, the number is written into the file, nodes come and join, and it stops."""

import signal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.xen.kills import forget_killed, open_killer
from tests.xen.kit import Site, open_site
from tests.xen.server.pool import GIB
from transfer.errors import BusyError
from xen import poolfile
from xen.apply import View
from xen.growing import Grower
from xen.metrics import Metrics
from xen.plan import make_plan
from xen.poolfile import PoolFile
from xen.reconcile import Changes

EACH = 100


async def filled(site: Site, free: int, /, count: int = 2, most: int = 9, **more: Any) -> PoolFile:
    """Bring so many nodes up, each with `free` of `EACH` bytes left, and return the file that lets them grow."""
    site.cloud.room_bytes = EACH
    file = site.file(count=count, growth={"count_max": most}, **more)
    await site.apply(file)
    site.cloud.fill(free)
    return file


def path(site: Site) -> Path:
    return site.folder / "pool.toml"


def read(site: Site) -> PoolFile:
    return poolfile.load(path(site), {})


class Reconciler:
    """Rounds as the command has them, without the pauses; what it says and warns of is kept."""

    def __init__(self, site: Site) -> None:
        self.site, self.metrics, self.said = site, Metrics(), list[str]()
        self._grower, self._changes = Grower(path(site), self.metrics), Changes(self.said.append)
        self.logs: list[Any] = []

    async def rounds(self, times: int) -> None:
        for _ in range(times):
            with capture_logs() as logs:
                await self.site.round(read(self.site), grower=self._grower, metrics=self.metrics, say=self._changes)
            self._changes.next_round()
            self.logs += logs

    def events(self, name: str) -> list[Any]:
        return [each for each in self.logs if each["event"] == name]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def test_when_disks_fill_nodes_come_and_join_and_then_it_stops(site: Site) -> None:
    await filled(site, 50)
    text = path(site).read_text().replace("count = 2", "count = 2  # as agreed")
    path(site).write_text(text)
    reconciler = Reconciler(site)
    await reconciler.rounds(2)
    assert path(site).read_text() == text  # half of it is free
    site.cloud.fill(0)
    await reconciler.rounds(1)
    assert path(site).read_text() == text.replace("count = 2", "count = 3")
    site.assert_exactly(3)
    assert reconciler.value("fascicle_pool_nodes_wanted") == 3
    await reconciler.rounds(3)
    assert path(site).read_text() == text.replace("count = 2", "count = 3")
    site.assert_exactly(3)
    (grown,) = reconciler.events("pool_grown")
    assert (grown["before"], grown["count"], grown["count_max"]) == (2, 3, 9)
    assert reconciler.said[0] == "less than 15 % of the nodes' room is free: 3 nodes are wanted, not 2"
    assert reconciler.events("pool_cannot_grow") == []
    assert reconciler.value("fascicle_pool_nodes_grown_total") == 1
    assert reconciler.value("fascicle_pool_growth_total", outcome="grown") == 1
    assert reconciler.value("fascicle_pool_growth_total", outcome="enough") == 5
    assert reconciler.value("fascicle_pool_free_ratio") == pytest.approx(1 / 3)


async def test_as_many_as_suffice_come_at_once_and_none_goes_by_itself(site: Site) -> None:
    await filled(site, 0, count=3)
    path(site).write_text(path(site).read_text().replace("[growth]", "[growth]\nfree_share_min = 0.5"))
    reconciler = Reconciler(site)
    await reconciler.rounds(1)
    site.assert_exactly(6)
    site.cloud.fill(EACH)
    await reconciler.rounds(2)
    site.assert_exactly(6)
    assert read(site).nodes.count == 6


async def test_a_file_without_growth_never_grows(site: Site) -> None:
    await filled(site, 0, most=0)
    reconciler = Reconciler(site)
    await reconciler.rounds(2)
    site.assert_exactly(2)
    assert reconciler.value("fascicle_pool_growth_total", outcome="off") == 2
    assert reconciler.value("fascicle_pool_free_ratio") == 0.0


async def test_nodes_that_do_not_come_up_are_not_followed_by_more(site: Site) -> None:
    await filled(site, 1, watch={"enrol_timeout_s": 0.1})
    boots, site.pool.on_boot = site.pool.on_boot, lambda machine: None
    reconciler = Reconciler(site)
    await reconciler.rounds(4)
    assert read(site).nodes.count == 3
    assert len(site.nodes()) <= 3
    assert len(site.cloud.view()) == 2
    assert reconciler.value("fascicle_pool_growth_total", outcome="coming") == 3
    site.pool.on_boot = boots
    await reconciler.rounds(3)
    site.assert_exactly(3)


async def test_at_the_maximum_somebody_is_told_once(site: Site) -> None:
    await filled(site, 1, most=2)
    reconciler = Reconciler(site)
    await reconciler.rounds(3)
    site.assert_exactly(2)
    (warning,) = reconciler.events("pool_cannot_grow")
    assert (warning["log_level"], warning["code"], reconciler.said) == ("warning", "maximum", [warning["reason"]])
    assert "there are 2 nodes, as many as `growth.count_max` allows; raise it" in warning["reason"]
    assert reconciler.value("fascicle_pool_growth_total", outcome="maximum") == 3
    site.cloud.fill(50)
    await reconciler.rounds(1)
    site.cloud.fill(1)
    await reconciler.rounds(1)
    assert len(reconciler.events("pool_cannot_grow")) == 2  # it is news again


async def test_a_node_that_is_silent_holds_it_up_and_is_named(site: Site) -> None:
    await filled(site, 1)
    site.cloud.halt("node-02", silent_s=20.0)
    reconciler = Reconciler(site)
    await reconciler.rounds(2)
    site.cloud.known["node-02"]["state"] = "live"
    assert read(site).nodes.count == 2
    (warning,) = reconciler.events("pool_cannot_grow")
    assert warning["reason"].endswith("none is added before all that are wanted serve; it lacks node-02")
    await reconciler.rounds(1)
    site.assert_exactly(3)


async def test_hosts_without_room_are_said_by_how_much_once_and_nothing_is_half_made(tmp_path: Path) -> None:
    with open_site(tmp_path, hosts=1, host_memory=4 * GIB) as site:
        await filled(site, 0, count=2, memory_mib=1024)
        text = path(site).read_text()
        reconciler = Reconciler(site)
        path(site).write_text(text.replace("[growth]", "[growth]\nfree_share_min = 0.75"))
        await reconciler.rounds(1)
        site.assert_exactly(3)  # of the six that would be needed more, one fits
        assert reconciler.events("pool_grown")[0]["count"] == 3
        (first,) = reconciler.events("pool_cannot_grow")
        assert first["code"] == "no_room"
        assert first["reason"].startswith("6 machines more than now: 5.")
        assert first["reason"].endswith("there is enough for 1). What fits is done")
        site.cloud.fill(0)
        await reconciler.rounds(3)
        site.assert_exactly(3)
        assert read(site).nodes.count == 3
        _, second = reconciler.events("pool_cannot_grow")
        assert "is free, and none is added: 6 machines more than now: " in second["reason"]
        assert second["reason"].endswith("there is enough for 0). Nothing was done")
        assert reconciler.said.count(second["reason"]) == 1


@pytest.mark.parametrize(("at", "before"), [(1, True), (1, False), (4, True)])
async def test_killed_after_the_file_was_written_the_next_round_goes_on(site: Site, at: int, before: bool) -> None:
    await filled(site, 1)
    with open_killer(site) as killer:
        assert killer.run(at, before=before, task="reconcile") == -signal.SIGKILL
        assert read(site).nodes.count == 3
        assert len(site.cloud.view()) == 2
        if at == 1 and before:
            assert dict(killer.kills) == {"before VM.clone": 1}
            with site.backend(read(site)) as backend:  # what a person's `plan` shows
                plan = make_plan(read(site).wanted(), backend.observe(), site.cloud.view())
            assert plan.lines()[0] == "1. make node-03"
        assert killer.run(task="reconcile") == 0
        assert killer.run(task="reconcile") == 0
    forget_killed(site)
    assert read(site).nodes.count == 3
    site.assert_exactly(3)


async def test_a_number_that_a_person_has_just_written_stands(site: Site) -> None:
    stale = await filled(site, 1)
    theirs = path(site).read_text().replace("count = 2", "count = 1")
    path(site).write_text(theirs)
    with capture_logs() as logs:
        await site.round(stale)
    assert path(site).read_text() == theirs
    (warning,) = [each for each in logs if each["event"] == "pool_cannot_grow"]
    assert warning["code"] == "conflict"
    assert "says 1 nodes, and 2 are in force" in warning["reason"]
    site.assert_exactly(2)
    site.cloud.fill(50)
    await site.round(read(site))
    site.assert_exactly(1)


async def test_what_a_person_has_just_changed_beside_the_number_stays(site: Site) -> None:
    stale = await filled(site, 1)
    theirs = path(site).read_text().replace("count = 2", "# two were too few\ncount = 2\nvcpus = 2")
    path(site).write_text(theirs)
    await site.round(stale)
    assert path(site).read_text() == theirs.replace("count = 2", "count = 3")
    site.assert_exactly(3)


async def test_a_number_of_the_environment_is_not_overruled(site: Site) -> None:
    await filled(site, 1)
    file = poolfile.load(path(site), {"FASCICLE_NODES__COUNT": "3"})
    site.cloud.room_bytes = 1
    await site.round(file)
    with capture_logs() as logs:
        await site.round(file)
    (warning,) = [each for each in logs if each["event"] == "pool_cannot_grow"]
    assert "FASCICLE_NODES__COUNT" in warning["reason"]
    assert read(site).nodes.count == 2
    site.assert_exactly(3)


async def test_a_file_that_cannot_be_changed_holds_up_nothing_else(site: Site) -> None:
    await filled(site, 1)
    path(site).write_text(path(site).read_text().replace("count = 2", "'count' = 2"))
    stopped = site.pool.database.pick("VM", name_label="node-02")[0]
    site.wire.calls.written["VM.hard_shutdown"](stopped)
    site.cloud.known["node-02"]["state"] = "live"  # the gateway has not noticed yet
    reconciler = Reconciler(site)
    await reconciler.rounds(2)
    (warning,) = reconciler.events("pool_cannot_grow")
    assert (warning["code"], "has no line `count = N`" in warning["reason"]) == ("settings", True)
    site.assert_exactly(2)


async def test_a_run_that_was_overtaken_writes_nothing(site: Site) -> None:
    file = await filled(site, 1)

    class Lost:
        def check(self) -> None:
            raise BusyError("another has it")

    with site.backend(file) as backend:
        view = View(backend.observe(), site.cloud.view())
    with pytest.raises(BusyError):
        await Grower(path(site), Metrics()).grow(file, view, Lost(), site.said.append)
    assert read(site).nodes.count == 2
