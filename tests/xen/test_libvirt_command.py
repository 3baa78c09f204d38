"""The whole command set of `fascicle xen` at hosts of libvirt's test driver, from the command line on."""
# ruff: noqa: E402  (these need libvirt, and are looked for only where it is)

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (it needs libvirt-dev)")

from fascicle import pools
from fascicle.cli import main
from tests.xen.libvirt_kit import Hosts, open_hosts
from xen import lease, poolfile, reconcile
from xen.libvirt import backend, lock
from xen.metrics import Metrics

Command = Callable[..., tuple[int, dict[str, Any]]]
NAMES = ["anna", "bert", "carl"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    monkeypatch.setattr(lock, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(backend, "LOOK_EVERY_S", 0.02)
    with open_hosts(tmp_path, monkeypatch, NAMES) as opened:
        yield opened


@pytest.fixture
def command(site: Hosts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a task with --json; its gateway is in memory."""

    @asynccontextmanager
    async def cloud(_: Path) -> AsyncIterator[Any]:
        yield site.cloud

    monkeypatch.setattr(pools, "open_cloud", cloud)

    def run(task: str, *words: object) -> tuple[int, dict[str, Any]]:
        code = main(["xen", task, "--pool", str(site.folder / "pool.toml"), "--json", *map(str, words)])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_plan_apply_status_scale_and_destroy(site: Hosts, command: Command) -> None:
    path = site.path(count=4)
    code, said = command("plan")
    assert (code, len(said["steps"])) == (0, 16)
    assert site.machines() == []
    code, said = command("apply")
    assert (code, said["steps"]) == (0, {"make": 4, "configure": 4, "begin": 4, "await": 4})
    site.assert_exactly(4)
    code, said = command("status")
    assert (code, said["steps"], said["wanted"]) == (0, 0, 4)
    assert sorted(each["host"].partition(".")[0] for each in said["nodes"]) == ["anna", "anna", "bert", "carl"]
    assert command("scale", 6)[0] == 0
    assert "count = 6" in path.read_text()
    site.assert_exactly(6)
    assert command("scale", 2)[0] == 0
    site.assert_exactly(2)
    code, said = command("destroy")
    assert (code, len(said["steps"])) == (0, 4)
    site.assert_exactly(2)
    assert command("destroy", "--yes")[0] == 0
    site.assert_exactly(0)


def test_drain_of_nodes_and_of_a_host_and_what_takes_their_place(site: Hosts, command: Command) -> None:
    site.path(count=3)
    command("apply")
    code, said = command("drain", "node-02")
    assert (code, said["failed"]) == (0, {})
    assert [each.name for each in site.machines()] == ["node-01", "node-03"]
    command("apply")
    assert len(site.machines()) == 3
    on_bert = [each.name for each in site.machines() if each.host_id == "bert"]
    code, said = command("drain", "--host", "bert.example.org")
    assert (code, said["moved"], said["drained"]) == (0, [], on_bert)  # their disks are bert's own
    assert [each.host_id for each in site.machines()].count("bert") == 0
    command("apply")
    assert [each.host_id for each in site.machines()].count("bert") == 0
    assert len(site.machines()) == 3
    assert command("drain", "--host", "bert", "--undo") == (0, {"host": "bert.example.org", "open": True})


def test_snapshot_upgrade_and_destroy_with_data(site: Hosts, command: Command) -> None:
    site.path(count=2, revision="a")
    command("apply")
    assert command("snapshot", "node-01", "--label", "before") == (0, {"snapshots": ["node-01"]})
    assert site.domain("node-01").snapshotListNames() == ["before"]
    site.path(count=2, revision="b")
    assert command("apply")[1]["steps"] == {}
    assert command("apply", "--upgrade")[0] == 0
    assert {each.revision for each in site.machines()} == {"b"}
    assert len(site.machines()) == 2
    assert command("destroy", "--with-data", "--yes")[0] == 0
    assert site.machines() == []
    assert [site.volumes(name) for name in NAMES] == [["template.qcow2"]] * 3


def test_what_is_not_there_and_who_does_not_answer(site: Hosts, command: Command) -> None:
    site.path(count=1)
    site.hosts["anna"].is_cut = True
    code, said = command("status")
    assert (code, said["error"]["code"]) == (3, "unreachable")
    site.hosts["anna"].is_cut = False
    site.path(count=1, template="nowhere")
    code, said = command("plan")
    assert (code, said["error"]["code"]) == (2, "settings")


async def test_the_reconciler_brings_back_what_somebody_took_away(site: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site.file(count=2, watch={"every_s": 1.0, "grace_s": 1.0})
    path = site.folder / "pool.toml"
    with site.backend(file) as opened:
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                owner, say = lease.this_process(), site.said.append
                await reconcile.reconcile(
                    lambda: file, path, opened, site.cloud, owner=owner, say=say, metrics=Metrics()
                )

            nursery.start_soon(keep)
            await _until(lambda: len(site.cloud.view()) == 2)
            site.domain("node-02").destroy()
            await _until(lambda: site.cloud.view()["node-02"].state == "silent")
            await _until(lambda: site.cloud.view()["node-02"].state == "live")
            nursery.cancel_scope.cancel()
    assert [each.name for each in site.machines()] == ["node-01", "node-02"]


async def test_the_reconciler_makes_more_when_disks_are_full(site: Hosts) -> None:
    site.cloud.room_bytes = 100
    file = site.file(count=1, growth={"count_max": 3}, watch={"every_s": 0.2})
    path = site.folder / "pool.toml"
    with site.backend(file) as opened:
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                await reconcile.reconcile(
                    lambda: poolfile.load(path, {}),
                    path,
                    opened,
                    site.cloud,
                    owner=lease.this_process(),
                    say=site.said.append,
                    metrics=Metrics(),
                )

            nursery.start_soon(keep)
            await _until(lambda: len(site.cloud.view()) == 1)
            site.cloud.fill(0)
            await _until(lambda: len(site.cloud.view()) == 2)
            nursery.cancel_scope.cancel()
    assert poolfile.load(path, {}).nodes.count == 2
    assert [each.name for each in site.machines()] == ["node-01", "node-02"]


async def _until(done: Callable[[], bool], within_s: float = 60.0) -> None:
    with trio.fail_after(within_s):
        while not done():
            await trio.sleep(0.05)
