"""Apply at the XenAPI server: from a bare pool to nodes, up and down, and what stands in the way."""

import msgspec
import pytest

from tests.xen.kit import CLUSTER, Site
from tests.xen.server.pool import GIB, MIB
from transfer.errors import (
    BusyError,
    ConflictError,
    FascicleError,
    FullError,
    SettingsError,
    UnauthorisedError,
    UnreachableError,
)
from xen.errors import PoolError


async def test_a_bare_pool_gets_its_nodes_spread_over_its_hosts(site: Site) -> None:
    report = await site.apply(site.file(count=7))
    site.assert_exactly(7)
    assert sorted(site.per_host()) == [2, 2, 3]
    assert report.rounds == 1
    assert report.steps == {"make": 7, "configure": 7, "begin": 7, "await": 7}
    uuids = {site.pool.database.get("host", host)["uuid"] for host in site.hosts}
    assert set(site.cloud.domains.values()) == uuids  # replicas are kept apart by these


async def test_a_node_has_the_shape_of_the_file(site: Site) -> None:
    await site.apply(site.file(count=1, memory_mib=1024, disk_mib=3072, vcpus=1))
    record = site.nodes()["node-01"]
    assert (record["VCPUs_max"], record["VCPUs_at_startup"]) == ("1", "1")
    assert {record[key] for key in ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min")} == {str(GIB)}
    disks = [site.pool.database.get("VBD", each)["VDI"] for each in record["VBDs"]]
    assert [site.pool.database.get("VDI", each)["virtual_size"] for each in disks] == [str(3 * GIB), str(MIB)]
    assert len(record["VIFs"]) == 1
    assert record["other_config"]["base"] == "debian"
    groups = [site.pool.database.get("VM_group", each) for each in record["groups"]]
    assert [each["placement"] for each in groups] == ["anti_affinity"]


async def test_more_processors_than_the_template_has(site: Site) -> None:
    await site.apply(site.file(count=1, vcpus=4))
    assert site.nodes()["node-01"]["VCPUs_at_startup"] == "4"


async def test_a_full_copy_takes_the_whole_room(site: Site) -> None:
    await site.apply(site.file(count=1, full_copy=True))
    used = int(site.pool.database.get("SR", site.storage)["physical_utilisation"])
    assert used == 2 * GIB + 3 * GIB + MIB
    assert site.pool.calls["VM.copy"] == 1
    assert site.pool.calls["VM.clone"] == 0


async def test_a_second_time_nothing_is_done(site: Site) -> None:
    await site.apply(site.file(count=2))
    before = dict(site.nodes())
    report = await site.apply(site.file(count=2))
    assert (report.steps, report.rounds) == ({}, 0)
    assert site.nodes() == before


async def test_up_and_down_and_to_none(site: Site) -> None:
    for count in (1, 5, 2, 0):
        await site.apply(site.file(count=count))
        site.assert_exactly(count)
        assert int(site.pool.database.get("SR", site.storage)["physical_utilisation"]) < (2 + 4 * count) * GIB + MIB
    assert sorted(site.cloud.revoked) == [f"node-{number:02}" for number in range(1, 6)]


async def test_without_groups_the_pool_is_spread_all_the_same(site: Site) -> None:
    site.pool.groups = False
    await site.apply(site.file(count=6))
    site.assert_exactly(6)
    assert site.per_host() == [2, 2, 2]


async def test_a_licence_without_groups_is_no_obstacle(site: Site) -> None:
    site.pool.inject("VM.set_groups", ["LICENCE_RESTRICTION", "VM_group"], times=99)
    await site.apply(site.file(count=3))
    site.assert_exactly(3)
    assert site.per_host() == [1, 1, 1]


async def test_a_node_that_is_needed_stays(site: Site) -> None:
    await site.apply(site.file(count=3))
    site.cloud.needed["node-03"] = 1
    with pytest.raises(BusyError, match=r"node-03 still holds the last replica"):
        await site.apply(site.file(count=2, watch={"drain_timeout_s": 0.1}))
    assert site.nodes()["node-03"]["power_state"] == "Running"
    assert site.nodes()["node-03"]["other_config"]["fascicle_stage"] == "leaving"
    site.cloud.needed["node-03"] = 0
    await site.apply(site.file(count=2))
    site.assert_exactly(2)


async def test_a_node_that_the_gateway_has_forgotten_is_not_removed(site: Site) -> None:
    """Its register was lost: nobody can say what is on the node."""
    await site.apply(site.file(count=2))
    forgotten = site.cloud.known.pop("node-02")
    with pytest.raises(ConflictError, match="the gateway does not know node-02, which may hold objects"):
        await site.apply(site.file(count=1))
    assert site.nodes()["node-02"]["power_state"] == "Running"
    site.cloud.known["node-02"] = forgotten
    await site.apply(site.file(count=1))
    site.assert_exactly(1)


async def test_a_node_that_never_enrolled_goes_at_once_and_its_invitation_with_it(site: Site) -> None:
    real, site.pool.on_boot = site.pool.on_boot, lambda machine: None
    with pytest.raises(UnreachableError):
        await site.apply(site.file(count=1, watch={"address_timeout_s": 0.1, "enrol_timeout_s": 0.1}))
    site.pool.on_boot = real
    await site.apply(site.file(count=0))
    site.assert_exactly(0)
    assert "node-01" in site.cloud.revoked


async def test_a_guest_that_does_not_shut_down_is_switched_off(site: Site) -> None:
    await site.apply(site.file(count=2))
    site.pool.hang_shutdown = True
    await site.apply(site.file(count=1, watch={"shut_down_timeout_s": 0.1}))
    site.assert_exactly(1)
    assert site.pool.calls["task.cancel"] == 1


async def test_late_guests_are_waited_for_by_events(site: Site) -> None:
    site.pool.delays.guest = 0.3
    site.pool.calls.clear()
    await site.apply(site.file(count=2))
    site.assert_exactly(2)
    assert site.pool.calls["VM_guest_metrics.get_record"] < 12
    assert site.pool.calls["event.from"] < 60


async def test_slow_clones_and_tasks(site: Site) -> None:
    site.pool.delays.clone, site.pool.delays.task = 0.1, 0.05
    await site.apply(site.file(count=3))
    site.assert_exactly(3)


async def test_a_guest_that_tells_no_address_is_named(site: Site) -> None:
    site.pool.delays.guest = 60.0
    with pytest.raises(UnreachableError, match="node-01 has told no address within 0 s"):
        await site.apply(site.file(count=1, watch={"address_timeout_s": 0.1}))


async def test_a_node_that_never_enrols_is_given_up_and_made_anew(site: Site) -> None:
    site.pool.on_boot = lambda machine: None
    with pytest.raises(FascicleError, match="did not serve within 0 s"):
        await site.apply(site.file(count=1, watch={"enrol_timeout_s": 0.1}))
    assert site.pool.calls["VM.clone"] == 3
    assert len(site.nodes()) == 1


# What cannot be


async def test_a_wrong_password_is_refused_at_once_and_not_shown(site: Site) -> None:
    (site.folder / "password").write_text("guess")
    with pytest.raises(UnauthorisedError, match="SESSION_AUTHENTICATION_FAILED") as caught:
        await site.apply(site.file())
    assert "guess" not in str(caught.value)
    assert site.pool.calls["session.login_with_password"] == 1


async def test_an_unreachable_coordinator_is_named(site: Site) -> None:
    file = site.file()
    assert file.xenapi is not None
    nobody = msgspec.structs.replace(file.xenapi, coordinator="https://127.0.0.1:1", fail_over_s=1.0)
    with pytest.raises(UnreachableError, match=r"no member of the pool answers: https://127.0.0.1:1: .*refused"):
        await site.apply(msgspec.structs.replace(file, xenapi=nobody))


async def test_a_pool_with_another_certificate_is_not_believed(site: Site) -> None:
    file = site.file()
    assert file.xenapi is not None
    other = msgspec.structs.replace(file.xenapi, certificates="", fail_over_s=1.0)
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        await site.apply(msgspec.structs.replace(file, xenapi=other))


@pytest.mark.parametrize("key", ["template", "network", "storage"])
async def test_what_the_pool_does_not_have_is_named_before_anything(site: Site, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"the pool has no {key} `nowhere` \(`nodes.{key}`\); there are: "):
        await site.apply(site.file(**{key: "nowhere"}))
    assert not site.nodes()
    site.assert_nothing_left(0)


async def test_too_little_memory_is_said_before_anything(site: Site) -> None:
    with pytest.raises(FullError, match=r"GiB of memory on the hosts are missing"):
        await site.apply(site.file(count=60))
    site.assert_nothing_left(0)


async def test_storage_that_fills_up_meanwhile_is_said_and_gone_on_with_later(site: Site) -> None:
    room = int(site.pool.database.get("SR", site.storage)["physical_size"])
    real = site.pool.use
    site.pool.database.set("SR", site.storage, physical_utilisation=str(room - 13 * GIB))
    site.pool.inject("VDI.resize", ["SR_FULL", "1", "0"], times=99)
    with pytest.raises(FullError, match=r"the pool refused VDI.resize: SR_FULL \(1, 0\)"):
        await site.apply(site.file(count=3))
    site.pool.injected.clear()
    real(site.storage, -100 * GIB)
    await site.apply(site.file(count=3))
    site.assert_exactly(3)


async def test_no_host_takes_it(site: Site) -> None:
    for host in site.hosts:
        site.pool.inject("VM.start_on", ["NO_HOSTS_AVAILABLE"], times=99)
        del host
    with pytest.raises(FullError, match="NO_HOSTS_AVAILABLE"):
        await site.apply(site.file(count=1))


async def test_memory_that_is_gone_meanwhile(site: Site) -> None:
    """Every host says no to this machine, each for its reason."""
    site.pool.inject("VM.get_possible_hosts", ["HOST_NOT_ENOUGH_FREE_MEMORY", "x"], times=99)
    with pytest.raises(FullError, match="HOST_NOT_ENOUGH_FREE_MEMORY"):
        await site.apply(site.file(count=1))


async def test_an_error_without_a_meaning_of_ours_keeps_its_name(site: Site) -> None:
    site.pool.inject("VM.start_on", ["BOOTLOADER_FAILED", "vm", "no kernel"], times=99)
    with pytest.raises(PoolError, match=r"VM.start_on: BOOTLOADER_FAILED \(vm, no kernel\)") as caught:
        await site.apply(site.file(count=1))
    assert (caught.value.name, caught.value.details) == ("BOOTLOADER_FAILED", ("vm", "no kernel"))


# Others' things


async def test_copies_and_snapshots_of_ours_that_somebody_made_are_not_ours(site: Site) -> None:
    await site.apply(site.file(count=1))
    base = site.pool.database
    ours = next(key for key, each in base.records["VM"].items() if each["name_label"] == "node-01")
    with site.backend(site.file(count=1)) as backend:
        backend.snapshot("node-01", "before")
        backend.snapshot("node-01", "before")
    assert len(base.get("VM", ours)["snapshots"]) == 1
    base.make("VM", **(base.get("VM", ours) | {"uuid": "copied", "name_label": "node-02", "VBDs": [], "VIFs": []}))
    report = await site.apply(site.file(count=1))
    assert report.steps == {}
    assert base.pick("VM", uuid="copied")


async def test_a_machine_of_ours_that_somebody_renamed_is_found(site: Site) -> None:
    await site.apply(site.file(count=1))
    base = site.pool.database
    base.set("VM", base.pick("VM", name_label="node-01")[0], name_label="archive")
    report = await site.apply(site.file(count=1))
    assert report.steps == {}
    assert base.pick("VM", name_label="archive")


async def test_a_disk_that_somebody_took_off_a_node_is_not_removed(site: Site) -> None:
    await site.apply(site.file(count=1))
    base = site.pool.database
    disk = base.make("VDI", name_label="rescued", SR=site.storage, other_config={"fascicle_cluster": CLUSTER})
    assert (await site.apply(site.file(count=1))).steps == {}
    assert disk in base.records["VDI"]
