"""The reconciler at the XenAPI server: hosts die and return, machines vanish, room runs out; the number is kept."""

import socket

import httpx
import pytest
import trio

from tests.xen.kit import Site
from transfer.errors import SettingsError
from xen import poolfile
from xen.metrics import Metrics, open_listener
from xen.reconcile import Changes, Patient, reconcile


async def rounds(site: Site, times: int = 1, /, **nodes: object) -> None:
    file = site.file(**nodes)
    for _ in range(times):
        await site.round(file)


def names_on(site: Site, host: str) -> list[str]:
    return sorted(name for name, each in site.nodes().items() if each["resident_on"] == host)


async def test_a_dead_host_s_nodes_come_up_elsewhere_after_the_grace_time(site: Site) -> None:
    await site.apply(site.file(count=6))
    victim = site.hosts[1]
    lost = names_on(site, victim)
    assert len(lost) == 2
    site.kill_host(victim)
    await rounds(site, count=6)
    assert len(site.nodes()) == 6  # within the grace time
    for name in lost:
        site.cloud.halt(name, silent_s=601.0)
    await rounds(site, count=6)
    nodes = site.nodes()
    new = sorted(set(nodes) - {f"node-{number:02}" for number in range(1, 7)})
    assert new == ["node-07", "node-08"]
    assert {nodes[name]["resident_on"] for name in new} <= {site.hosts[0], site.hosts[2]}
    assert sorted(site.per_host()) == [2, 3, 3]
    assert all(site.cloud.view()[name].draining for name in lost)  # so the gateway copies what they had
    assert [nodes[name]["other_config"]["fascicle_stage"] for name in lost] == ["leaving"] * 2
    before = dict(nodes)
    await rounds(site, 2, count=6)
    assert site.nodes().keys() == before.keys()  # and that is all


async def test_what_a_host_brings_back_goes_when_nothing_needs_it(site: Site) -> None:
    await site.apply(site.file(count=3))
    victim = site.hosts[2]
    (lost,) = names_on(site, victim)
    site.kill_host(victim)
    site.cloud.halt(lost, silent_s=700.0)
    site.cloud.needed[lost] = 2
    await rounds(site, count=3)
    assert len(site.nodes()) == 4
    site.pool.revive_host(victim, machines_run=True)
    site.wire.listen(victim, site.pool.database.get("host", victim)["address"])
    await rounds(site, 2, count=3)
    assert lost in site.nodes()  # it has the last replica of two objects
    assert any("still holds the last replica" in line for line in site.said)
    site.cloud.needed[lost] = 0
    await rounds(site, count=3)
    assert sorted(site.nodes()) == sorted({"node-01", "node-02", "node-03", "node-04"} - {lost})
    site.assert_nothing_left(3)


async def test_the_coordinator_itself_dies(site: Site) -> None:
    await site.apply(site.file(count=3))
    (lost,) = names_on(site, site.hosts[0])
    site.kill_host(site.hosts[0])
    site.pool.fail_over(site.hosts[1])
    site.cloud.halt(lost, silent_s=700.0)
    file = site.file(count=3)
    others = [f"https://{site.pool.database.get('host', host)['address']}:{site.wire.port}" for host in site.hosts[1:]]
    text = (site.folder / "pool.toml").read_text().replace("password_file", f"others = {others}\npassword_file")
    (site.folder / "pool.toml").write_text(text)
    file = poolfile.load(site.folder / "pool.toml", {})
    await site.round(file)
    assert len(site.nodes()) == 4
    assert site.per_host()[1:] == [2, 1] or site.per_host()[1:] == [1, 2]


async def test_a_machine_that_was_removed_or_stopped_by_hand(site: Site) -> None:
    await site.apply(site.file(count=3))
    calls = site.wire.calls
    gone, stopped = (site.pool.database.pick("VM", name_label=name)[0] for name in ("node-01", "node-02"))
    calls.written["VM.hard_shutdown"](gone)
    for device in site.pool.database.get("VM", gone)["VBDs"]:
        calls.written["VDI.destroy"](site.pool.database.get("VBD", device)["VDI"])
    calls.written["VM.destroy"](gone)
    calls.written["VM.hard_shutdown"](stopped)
    await rounds(site, 2, count=3)
    assert sorted(site.nodes()) == ["node-01", "node-02", "node-03"]
    assert {each["power_state"] for each in site.nodes().values()} == {"Running"}
    site.assert_nothing_left(3)


async def test_with_too_little_room_what_fits_is_done(site: Site) -> None:
    await rounds(site, count=60, memory_mib=4096)
    nodes = site.nodes()
    assert len(nodes) == 9  # 16 GiB a host, 4 GiB and a little each
    assert any("GiB of memory on the hosts are missing" in line and "What fits is done" in line for line in site.said)


async def test_an_attempt_that_fails_for_one_holds_up_no_other(site: Site) -> None:
    site.pool.inject("VM.start_on", ["BOOTLOADER_FAILED", "x", "y"], times=1)
    await rounds(site, count=3)
    assert [each["power_state"] for each in site.nodes().values()].count("Running") == 2
    await rounds(site, count=3)
    site.assert_exactly(3)


async def test_it_goes_on_by_itself_and_reads_the_file_anew(site: Site) -> None:
    file = site.file(count=1, watch={"every_s": 0.1})
    path = site.folder / "pool.toml"
    metrics = Metrics()
    with site.backend(file) as backend:
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                await reconcile(
                    lambda: poolfile.load(path, {}),
                    path,
                    backend,
                    site.cloud,
                    owner="test/1/1",
                    say=site.said.append,
                    metrics=metrics,
                )

            nursery.start_soon(keep)
            with trio.fail_after(60):
                while len(site.cloud.view()) < 1:
                    await trio.sleep(0.02)
                path.write_text("not TOML")
                while not metrics.registry.get_sample_value("fascicle_pool_rounds_total", {"outcome": "settings"}):
                    await trio.sleep(0.02)
                site.file(count=2, watch={"every_s": 0.1})
                while len(site.cloud.view()) < 2:
                    await trio.sleep(0.02)
                site.pool.expire_sessions()
                site.file(count=1, watch={"every_s": 0.1})
                while len(site.nodes()) > 1:
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    site.assert_exactly(1)
    value = metrics.registry.get_sample_value
    assert value("fascicle_pool_nodes_wanted") == 1
    assert value("fascicle_pool_steps_total", {"step": "make", "outcome": "done"}) == 2
    assert value("fascicle_pool_steps_total", {"step": "retire", "outcome": "done"}) == 1
    assert value("fascicle_pool_hosts", {"state": "open"}) == 3


async def test_silence_that_the_gateway_forgot_is_counted_here(site: Site) -> None:
    now = [100.0]
    patient = Patient(site.cloud, lambda: now[0])
    site.cloud.known["node-01"] = {"draining": False, "state": "unknown", "silent_s": None}
    assert (await patient.nodes())["node-01"].silent_s == 0.0
    now[0] = 160.0
    assert (await patient.nodes())["node-01"].silent_s == 60.0
    site.cloud.known["node-01"] |= {"state": "live"}
    assert (await patient.nodes())["node-01"].silent_s is None
    site.cloud.known["node-01"] |= {"state": "silent", "silent_s": 5.0}
    now[0] = 200.0
    assert (await patient.nodes())["node-01"].silent_s == 5.0
    now[0] = 260.0
    assert (await patient.nodes())["node-01"].silent_s == 60.0


def test_metrics_are_read_over_http() -> None:
    with open_listener(Metrics(), "127.0.0.1:0"):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="cannot be listened on"), open_listener(Metrics(), _name(taken)):
            pass
        free = _name(taken)
    with open_listener(Metrics(), free):
        assert "fascicle_pool_nodes_wanted 0.0" in httpx.get(f"http://{free}/metrics", trust_env=False).text


def _name(taken: socket.socket) -> str:
    return "{}:{}".format(*taken.getsockname())


def test_what_stays_as_it_is_needs_no_word_again() -> None:
    said: list[str] = []
    changes = Changes(said.append)
    for lines in (["a", "b"], ["b"], ["a", "b"]):
        for line in lines:
            changes(line)
        changes.next_round()
    assert said == ["a", "b", "a"]
