"""A real gateway, real nodes, and the command: a full node's cloud gets another, which takes what comes next.

The node is full because its reserve is larger than any disk, not because anything was written.
"""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from experiments.generate import write_series
from tests.free import free_port
from tests.xen.real import WATCH, Cloud, fascicle, holders, open_real, wait_for
from xen import poolfile

pytestmark = pytest.mark.cluster
FULL = "\nreserve_bytes = 1_000_000_000_000_000_000\n"


def fill(cloud: Cloud, name: str) -> None:
    """Let a node start again with a reserve that leaves nothing."""
    (machine,) = cloud.site.pool.database.pick("VM", name_label=name)
    disk = cloud.site.folder / "disks" / cloud.site.pool.database.get("VM", machine)["uuid"]
    cloud.machines.halt(machine)
    config = disk / "node.toml"
    config.write_text(FULL + config.read_text())
    cloud.machines.boot(machine)
    wait_for(lambda: [(each["state"], each["free_bytes"]) for each in cloud.status()["nodes"]] == [("live", 0)])


def sent(cloud: Cloud, folder: Path, seed: int) -> set[str]:
    """Send a few images; return the nodes that have all of them."""
    before = holders(cloud)
    write_series(folder, 4, seed=seed, rows=64, columns=64)
    sender = cloud.send(folder)
    out, errors = sender.communicate(timeout=90)
    assert sender.returncode == 0, (out, errors)
    after = holders(cloud)
    assert len(after) == len(before) + 4
    return {name for key in after.keys() - before.keys() for name in after[key]}


def test_a_full_node_s_cloud_gets_another_by_itself_and_then_no_more(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"

    def measured(sample: str) -> float:
        lines = httpx.get(f"http://{listen}/metrics", trust_env=False).text.splitlines()
        return float(next((line.split()[-1] for line in lines if line.startswith(sample + " ")), "0"))

    with open_real(tmp_path, hosts=2) as cloud:
        path = tmp_path / "pool.toml"
        administrator = poolfile.load(path, {}).administrator
        watch = WATCH | {"every_s": 0.2, "metrics_listen": listen}
        cloud.site.file(count=1, administrator=administrator, watch=watch, growth={"count_max": 5})
        fascicle("xen", "apply", "--pool", path)
        assert sent(cloud, tmp_path / "first", 1) == {"node-01"}
        fill(cloud, "node-01")
        words = [sys.executable, "-m", "fascicle", "xen", "reconcile", "--pool", str(path)]
        with (tmp_path / "reconcile.log").open("wb") as log:
            keeper = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            wait_for(lambda: cloud.live() == ["node-01", "node-02"])
            wait_for(lambda: measured('fascicle_pool_growth_total{outcome="enough"}') >= 3)
            assert measured("fascicle_pool_nodes_grown_total") == 1
            assert measured("fascicle_pool_free_ratio") > 0.9
        finally:
            keeper.send_signal(signal.SIGTERM)
            keeper.wait(60)
        assert keeper.returncode == 143, (tmp_path / "reconcile.log").read_text()
        assert poolfile.load(path, {}).nodes.count == 2
        assert sorted(cloud.site.nodes()) == ["node-01", "node-02"]
        said = (tmp_path / "reconcile.log").read_text()
        assert said.count("less than 15 % of the nodes' room is free: 2 nodes are wanted, not 1") == 1
        assert sent(cloud, tmp_path / "second", 2) == {"node-02"}
        cloud.assert_holds([tmp_path / "first", tmp_path / "second"], tmp_path / "back")
