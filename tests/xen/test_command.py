"""`fascicle xen` at the XenAPI server, from the command line on: what it prints, and its exit codes."""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fascicle import pools
from fascicle.cli import main
from tests.xen.kit import Site, open_site
from transfer import credentials, pki
from xen import apply, steps

Command = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("pool")) as opened:
        yield opened


@pytest.fixture
def command(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command; its gateway is in memory."""

    @asynccontextmanager
    async def cloud(_: Path) -> AsyncIterator[Any]:
        yield site.cloud

    monkeypatch.setattr(pools, "open_cloud", cloud)
    monkeypatch.setattr(steps, "ASK_EVERY_S", 0.02)
    monkeypatch.setattr(apply, "PAUSE_S", 0.02)

    def run(task: str, *words: object) -> tuple[int, list[str], str]:
        code = main(["xen", task, "--pool", str(site.folder / "pool.toml"), *map(str, words)])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return run


def test_plan_says_what_apply_will_do_and_does_nothing(site: Site, command: Command) -> None:
    site.file(count=2)
    code, lines, _ = command("plan")
    assert code == 0
    assert lines[0] == "1. make node-01"
    assert lines[-1] == "8. wait until node-02 serves"
    assert "start node-01 for the first time, on host-" in lines[2]
    assert not site.nodes()


def test_apply_prints_the_plan_first_and_each_step(site: Site, command: Command) -> None:
    code, lines, _ = command("apply")
    assert code == 0
    assert lines[:8] == [line for line in lines if line[0].isdigit()]
    assert sorted(lines[8:16])[0] == "done: configure node-01"
    assert lines[-1] == "as wanted: 2 nodes (8 steps in 1 rounds)"
    site.assert_exactly(2)
    assert command("plan")[1] == ["nothing is to be done"]


def test_status(site: Site, command: Command) -> None:
    code, lines, _ = command("status")
    assert code == 0
    assert lines[0].startswith("host host-1  open  ")
    assert sorted(line.split("  ")[2] for line in lines[:3]) == ["0 nodes", "1 nodes", "1 nodes"]
    assert lines[3].startswith("node-01  serving  running on host-")
    assert lines[-2].endswith("is free is not known; no node is added by itself (`growth.count_max`)")
    assert lines[-1] == "as wanted"
    code, lines, _ = command("status", "--json")
    shown = json.loads(lines[0])
    assert [each["node"] for each in shown["nodes"]] == ["live", "live"]
    assert (shown["wanted"], shown["steps"], shown["notes"]) == (2, 0, [])


def test_status_says_how_much_room_there_is_and_what_comes_of_it(site: Site, command: Command) -> None:
    site.file(count=2, growth={"count_max": 3, "free_share_min": 0.125})
    for each in site.cloud.known.values():
        each |= {"free_bytes": 40, "total_bytes": 100}
    room = "% of the nodes' room is free; below 12.5 % the reconciler adds nodes, up to 3 in all"
    assert command("status")[1][-2:] == [f"40.0 {room}", "as wanted"]
    site.cloud.fill(10)
    assert command("status")[1][-3:] == [
        f"10.0 {room}",
        "less than 12.5 % of the nodes' room is free: 3 nodes are wanted, not 2",
        "as wanted",
    ]
    shown = json.loads(command("status", "--json")[1][0])
    assert shown["growth"] == {"free_ratio": 0.1, "outcome": "grown", "count_max": 3, "free_share_min": 0.125}
    code, _, errors = command("scale", 4)
    assert (code, "`growth.count_max`: 3 is fewer than the 4 of `nodes.count`" in errors) == (2, True)
    site.assert_exactly(2)


def test_apply_goes_by_what_was_written_while_it_waited(
    site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = site.folder / "pool.toml", pools.open_lock
    site.file(count=1)

    @asynccontextmanager
    async def open_lock(*words: Any) -> AsyncIterator[Any]:
        path.write_text(path.read_text().replace("count = 1", "count = 2"))  # by whoever had the lock before
        async with opened(*words) as lock:
            yield lock

    monkeypatch.setattr(pools, "open_lock", open_lock)
    assert command("apply")[1] == ["as wanted: 2 nodes (0 steps in 0 rounds)"]
    site.assert_exactly(2)


def test_scale_writes_the_number_and_nothing_else(site: Site, command: Command) -> None:
    path = site.folder / "pool.toml"
    path.write_text(path.read_text().replace("count = 2", "count = 2  # as agreed\nvcpus = 1"))
    code, lines, errors = command("scale", 3, "--json")
    assert code == 0
    assert json.loads(lines[-1])["steps"] == {"make": 1, "configure": 1, "begin": 1, "await": 1}
    assert "1. make node-03" in errors
    assert "count = 3  # as agreed\nvcpus = 1" in path.read_text()
    site.assert_exactly(3)


@pytest.mark.parametrize("said", ["2", "3"])  # another number than the file's 3, and the same
def test_scale_is_refused_where_the_environment_says_another_number(
    site: Site, command: Command, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    before = (site.folder / "pool.toml").read_text()
    monkeypatch.setenv("FASCICLE_NODES__COUNT", said)
    code, lines, errors = command("scale", 4)
    assert (code, lines) == (2, [])
    assert f"the environment says {said} nodes (FASCICLE_NODES__COUNT)" in errors and "set it to 4" in errors
    assert (site.folder / "pool.toml").read_text() == before
    site.assert_exactly(3)


def test_a_number_that_does_not_fit_is_refused_by_how_much_and_not_written(command: Command, site: Site) -> None:
    code, _, errors = command("scale", 90)
    assert code == 1
    assert "GiB of memory on the hosts are missing" in errors
    assert "Nothing was done" in errors
    code, _, errors = command("scale", 300)
    assert (code, "`addresses.first`: 300 nodes from" in errors) == (2, True)
    assert command("apply")[1] == ["as wanted: 3 nodes (0 steps in 0 rounds)"]
    site.assert_exactly(3)


def test_a_host_is_freed_for_maintenance_and_taken_back(site: Site, command: Command) -> None:
    code, lines, _ = command("drain", "--host", "host-2")
    assert (code, lines[-1]) == (0, "host-2 is free of nodes: 1 moved, 0 drained")
    assert site.per_host()[1] == 0
    moved = next(name for name, each in site.nodes().items() if site.cloud.domains[name] and each["resident_on"])
    uuids = {site.pool.database.get("host", each["resident_on"])["uuid"] for each in site.nodes().values()}
    assert site.cloud.domains[moved] in uuids
    assert {site.cloud.domains[name] for name in site.nodes()} == uuids
    assert "closed" in command("status")[1][1]
    assert command("drain", "--host", "host-2", "--undo")[1] == ["host-2 takes nodes again"]
    assert command("drain", "--host", "host-9")[0] == 1


def test_single_nodes_are_drained(site: Site, command: Command) -> None:
    code, lines, _ = command("drain", "node-02")
    assert code == 0
    assert lines[:2] == [
        "1. drain node-02: it was asked for",
        "2. remove node-02 as soon as nothing there is the last replica",
    ]
    assert sorted(site.nodes()) == ["node-01", "node-03"]
    code, _, errors = command("drain", "node-02")
    assert (code, "the pool has no node node-02; there are: node-01, node-03" in errors) == (1, True)
    assert command("drain")[0] == 2
    assert command("apply")[0] == 0
    site.assert_exactly(3)


def test_a_snapshot_is_made_once(site: Site, command: Command) -> None:
    for _ in range(2):
        assert command("snapshot", "node-01", "--label", "before")[0] == 0
    snapshots = [each for each in site.pool.database.records["VM"].values() if each["is_a_snapshot"]]
    assert [each["name_label"] for each in snapshots] == ["before"]


def test_an_upgrade_replaces_node_by_node(site: Site, command: Command) -> None:
    path = site.folder / "pool.toml"
    path.write_text(path.read_text().replace("vcpus = 1", 'vcpus = 1\nrevision = "2"'))
    assert command("apply")[1][-1].startswith("as wanted: 3 nodes (0 steps")
    assert command("apply", "--upgrade")[0] == 0
    assert [each["other_config"]["fascicle_revision"] for each in site.nodes().values()] == ["2"] * 3
    assert len(site.cloud.view()) == 3


def test_destroy_asks_first_and_drains(site: Site, command: Command) -> None:
    code, lines, _ = command("destroy")
    assert (code, lines[-1]) == (0, "nothing was done: say --yes")
    assert len(site.nodes()) == 3
    site.cloud.needed[sorted(site.nodes())[-1]] = 1
    path = site.folder / "pool.toml"
    path.write_text(path.read_text().replace("drain_timeout_s = 20.0", "drain_timeout_s = 0.1"))
    code, _, errors = command("destroy", "--yes")
    assert (code, "still holds the last replica" in errors) == (1, True)
    site.cloud.needed.clear()
    assert command("destroy", "--yes")[0] == 0
    site.assert_nothing_left(0)


def test_destroy_with_all_data_is_another_word(site: Site, command: Command) -> None:
    assert command("scale", 1)[0] == 0
    site.cloud.needed["node-01"] = 7
    assert "with all that is on it" in command("destroy", "--with-data")[1][0]
    assert command("destroy", "--with-data", "--yes")[0] == 0
    assert not site.nodes()


def test_what_cannot_be_used_ends_with_two(site: Site, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    path = site.folder / "pool.toml"
    path.write_text(path.read_text().replace("count = ", "cuont = "))
    code, _, errors = command("apply")
    assert (code, "unknown key `nodes.cuont`; did you mean `count`?" in errors) == (2, True)
    path.write_text(path.read_text().replace("cuont = 1", "'count' = 1").replace("cuont", "'count'"))
    code, _, errors = command("scale", 2)
    assert (code, "has no line `count = N`" in errors) == (2, True)
    assert main(["xen", "plan", "--pool", "/nowhere/pool.toml"]) == 2
    assert main(["xen", "plan"]) == 2
    capsys.readouterr()


def test_a_library_that_is_missing_is_named(site: Site, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    site.file(count=1)
    monkeypatch.setitem(sys.modules, "pycdlib", None)
    code, _, errors = command("plan")
    assert (code, "the library pycdlib is missing: pip install 'fascicle[xen]'" in errors) == (2, True)


def test_a_pool_that_does_not_answer_ends_with_three(site: Site, command: Command) -> None:
    site.file(count=1)
    path = site.folder / "pool.toml"
    text = path.read_text().replace(f":{site.wire.port}", ":1").replace("fail_over_s = 20.0", "fail_over_s = 0.1")
    path.write_text(text)
    code, _, errors = command("apply")
    assert (code, "no member of the pool answers" in errors) == (3, True)
    path.write_text(path.read_text().replace(':1"', f':{site.wire.port}"'))
    (site.folder / "password").write_text("guess")
    code, _, errors = command("apply", "--json")
    assert (code, "guess" in errors) == (2, False)


def test_sigterm_ends_the_reconciler_as_it_should(site: Site) -> None:
    """In a process of its own, without a gateway: the round fails, and the signal comes while it waits for the next."""
    site.file(count=0, administrator="nobody.json")
    (site.folder / "password").write_text(site.pool.secret)
    words = [sys.executable, "-m", "fascicle", "xen", "reconcile", "--pool", str(site.folder / "pool.toml")]
    credentials.save(nobody(site), site.folder / "nobody.json")
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not site.pool.sessions:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not site.pool.sessions
    assert [each["other_config"] for each in site.pool.database.records["pool"].values()] == [{}]


def nobody(site: Site) -> credentials.Credentials:
    """Return an administrator's credentials of a gateway that is not there."""
    authority = pki.create_authority(site.folder / "pki")
    pki.issue(authority, site.folder / "pki/administrator", name="administrator", role="administrator")
    return credentials.from_identity("https://127.0.0.1:1", site.folder / "pki/administrator")
