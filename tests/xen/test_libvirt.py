"""The libvirt back end at libvirt's own test driver: apply, faults, others' things."""
# ruff: noqa: E402  (these need libvirt, and are looked for only where it is)

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (it needs libvirt-dev)")

from tests.xen.libvirt_kit import CLUSTER, GIB, Hosts, open_hosts
from transfer.errors import (
    BusyError,
    ConflictError,
    UnreachableError,
)
from xen.libvirt import definitions, hosts, lock, marks
from xen.observed import Power, Stage


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOOK_EVERY_S", 0.02)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with open_hosts(tmp_path, monkeypatch, ["anna", "bert", "carl"]) as opened:
        yield opened


async def test_bare_hosts_get_their_nodes_spread_over_them(site: Hosts) -> None:
    report = await site.apply(site.file(count=7))
    site.assert_exactly(7)
    assert sorted(site.per_host()) == [2, 2, 3]
    assert report.steps == {"make": 7, "configure": 7, "begin": 7, "await": 7}
    assert set(site.cloud.domains.values()) == {"anna", "bert", "carl"}  # replicas are kept apart by these


async def test_a_node_has_the_shape_of_the_file_and_the_rest_of_its_template(site: Hosts) -> None:
    await site.apply(site.file(count=1, memory_mib=1024, disk_mib=3072, vcpus=2))
    (seen,) = site.machines()
    assert seen.address.count(".") == 3
    assert (seen.vcpus, seen.memory_bytes, seen.disk_bytes) == (2, GIB, 3 * GIB)
    definition = definitions.parse(site.domain("node-01").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    cards = definition.findall("devices/interface")
    assert [each.find("source").get("network") for each in cards] == ["storage"]  # type: ignore[union-attr]  # fails if None
    assert definition.find("title") is None
    assert definition.find("devices/console") is not None
    disks = definition.findall("devices/disk")
    assert [each.find("target").get("dev") for each in disks] == ["vda", "vdb"]  # type: ignore[union-attr]  # fails if None
    assert [each.find("readonly") is not None for each in disks] == [False, True]


async def test_disks_are_shared_with_the_templates_or_copied(site: Hosts) -> None:
    await site.apply(site.file(count=1))
    (seen,) = site.machines()
    pool = site.hosts[seen.host_id].real.storagePoolLookupByName("images")
    name = next(each for each in pool.listVolumes() if each.endswith(".disk"))
    assert f"/{seen.host_id}/images/template.qcow2" in pool.storageVolLookupByName(name).XMLDesc()
    await site.apply(site.file(count=0))
    await site.apply(site.file(count=1, full_copy=True))
    (seen,) = site.machines()
    pool = site.hosts[seen.host_id].real.storagePoolLookupByName("images")
    name = next(each for each in pool.listVolumes() if each.endswith(".disk"))
    assert "template.qcow2" not in pool.storageVolLookupByName(name).XMLDesc()


async def test_a_second_time_nothing_is_done(site: Hosts) -> None:
    await site.apply(site.file(count=2))
    report = await site.apply(site.file(count=2))
    assert (report.steps, report.rounds) == ({}, 0)


async def test_up_and_down_and_to_none(site: Hosts) -> None:
    for count in (1, 5, 2, 0):
        await site.apply(site.file(count=count))
        site.assert_exactly(count)
    assert sorted(site.cloud.revoked) == [f"node-{number:02}" for number in range(1, 6)]
    assert site.volumes("anna") == ["template.qcow2"]


async def test_a_node_that_is_needed_stays(site: Hosts) -> None:
    await site.apply(site.file(count=3))
    site.cloud.needed["node-03"] = 1
    with pytest.raises(BusyError, match=r"node-03 still holds the last replica"):
        await site.apply(site.file(count=2, watch={"drain_timeout_s": 0.2}))
    left = {each.name: (each.power, each.stage) for each in site.machines()}
    assert left["node-03"] == (Power.RUNNING, Stage.LEAVING)


async def test_a_machine_that_was_paused_or_halted_is_brought_back(site: Hosts) -> None:
    await site.apply(site.file(count=2))
    site.domain("node-01").suspend()
    site.domain("node-02").destroy()
    await site.apply(site.file(count=2))
    site.assert_exactly(2)


# Runs that were cut off


CALLS = {
    "defineXML": libvirt.virConnect,
    "createXML": libvirt.virStoragePool,
    "upload": libvirt.virStorageVol,
    "resize": libvirt.virStorageVol,
    "setMetadata": libvirt.virDomain,
    "create": libvirt.virDomain,
}
NTH = 1  # of the calls of one run: others have been through, others are still to come


class Killed(BaseException):
    """What ends a run without letting it tidy up."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CALLS)
async def test_cut_off_at_any_call_it_is_gone_on_with(
    site: Hosts, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    """At each call that changes something, before and after it was done: the next run ends with just three."""
    real, calls = getattr(CALLS[name], name), itertools.count()

    def cut_off(self: Any, *words: Any) -> Any:
        number = next(calls)
        if number == NTH and not after:
            raise Killed
        answer = real(self, *words)
        if number == NTH:
            raise Killed
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(CALLS[name], name, cut_off)
        with pytest.raises(BaseExceptionGroup) as caught:
            await site.apply(site.file(count=3))
    assert caught.group_contains(Killed)
    _forget_locks(site)
    await site.apply(site.file(count=3))
    site.assert_exactly(3)


def _forget_locks(site: Hosts) -> None:
    """The killed run's lock: this process lives, so nobody would take its owner for dead."""
    for host in site.hosts.values():
        for network in host.real.listAllNetworks():
            if lock.is_lock(network.name()):
                network.undefine()


def test_two_runs_at_once(site: Hosts) -> None:
    with site.backend() as one, site.backend() as two:
        with one.open_lock("a/1/1", 0.0) as held:
            held.check()
            with pytest.raises(BusyError, match="another run is at work on anna: a/1/1"), two.open_lock("b/1/1", 0.1):
                pass
        with two.open_lock("b/1/1", 0.1) as held:
            held.check()


def test_a_run_that_died_is_overtaken_and_one_that_lost_the_lock_stops(site: Hosts) -> None:
    links = list(hosts.open_links([f"test:///{site.folder}/{name}.xml" for name in site.hosts], site.open).values())
    with (
        lock.hold_lock(links, CLUSTER, "a/1/1", 0.0) as first,
        lock.hold_lock(links, CLUSTER, "b/1/1", 5.0, lease_s=0.2) as second,
    ):
        second.check()
        for each in first._held:
            each._beat_s = -1e9
        with pytest.raises(BusyError, match="the lock on anna was lost to b/1/1"):
            first.check()


def test_the_lock_is_held_as_long_as_one_host_confirms_it(site: Hosts) -> None:
    with site.backend() as backend, backend.open_lock("a/1/1", 0.0) as held:
        for each in held._held:  # type: ignore[attr-defined]  # of this back end
            each._beat_s = -1e9
        site.hosts["anna"].is_cut = True
        held.check()
        for each in held._held:  # type: ignore[attr-defined]  # of this back end
            each._beat_s = -1e9
        site.hosts["bert"].is_cut = site.hosts["carl"].is_cut = True
        with pytest.raises(UnreachableError):
            held.check()
        for host in site.hosts.values():
            host.is_cut = False


# Hosts that die


async def test_a_dead_hosts_nodes_are_replaced_after_the_grace_time_and_removed_when_it_is_back(site: Hosts) -> None:
    await site.apply(site.file(count=3))
    lost = next(each.name for each in site.machines() if each.host_id == "bert")
    site.hosts["bert"].is_cut = True
    site.cloud.halt(lost, silent_s=5.0)
    assert (await site.apply(site.file(count=3, watch={"grace_s": 60.0}))).steps == {}
    seen = {each.name: each for each in site.machines()}
    assert (seen[lost].power, seen[lost].host_id) == (Power.UNKNOWN, "bert")
    site.cloud.halt(lost, silent_s=100.0)
    await site.apply(site.file(count=3, watch={"grace_s": 60.0}))
    seen = {each.name: each for each in site.machines()}
    assert len(seen) == 4
    assert sum(each.power == Power.RUNNING for each in seen.values()) == 3
    with site.backend() as backend, pytest.raises(ConflictError, match="bert does not answer"):
        backend.destroy(seen[lost].machine_id)
    site.hosts["bert"].is_cut = False
    site.cloud.boot(lost, "", "bert")
    await site.apply(site.file(count=3, watch={"grace_s": 60.0}))
    assert len(site.machines()) == 3
    assert sum(len(site.volumes(name)) for name in site.hosts) == 3 + 2 * 3


async def test_a_mark_for_a_machine_out_of_reach_is_written_when_its_host_is_back(site: Hosts) -> None:
    await site.apply(site.file(count=3))
    lost = next(each for each in site.machines() if each.host_id == "carl")
    site.hosts["carl"].is_cut = True
    with site.backend() as backend:
        backend.mark(lost.name, Stage.LEAVING)
        assert backend.machine(lost.name).stage == Stage.LEAVING
    site.hosts["carl"].is_cut = False
    with site.backend() as backend:
        assert backend.machine(lost.name).stage == Stage.LEAVING
    read = marks.read(definitions.parse(site.domain(lost.name).XMLDesc()), CLUSTER)
    assert read is not None
    assert read.stage == Stage.LEAVING


def test_a_silent_host_that_was_never_seen_is_not_guessed_at(site: Hosts) -> None:
    site.hosts["anna"].is_cut = True
    with site.backend() as backend, pytest.raises(UnreachableError, match="never seen, so nobody knows which machines"):
        backend.observe()


async def test_a_closed_host_takes_no_nodes(site: Hosts) -> None:
    with site.backend() as backend:
        backend.open_host("bert", is_open=False)
        backend.open_host("bert", is_open=False)
    await site.apply(site.file(count=4))
    assert site.per_host() == [2, 0, 2]
    with site.backend() as backend:
        backend.open_host("bert", is_open=True)
    await site.apply(site.file(count=6))
    assert site.per_host() == [2, 2, 2]
