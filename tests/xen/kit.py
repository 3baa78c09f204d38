"""A whole pool for tests: the XenAPI server in this process, a gateway in memory, a pool file, and runs at them."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.xen.fake_cloud import FakeCloud, read_drive
from tests.xen.server.pool import GIB, Pool
from tests.xen.server.wire import Wire
from transfer import pki
from xen import lease, poolfile
from xen.apply import Report, Run, Say
from xen.backend import Backend
from xen.growing import Grower
from xen.holding import open_lock
from xen.metrics import Metrics
from xen.poolfile import PoolFile
from xen.reconcile import round_once
from xen.xenapi.backend import open_backend

NETWORK = f"127.{64 + os.getpid() // 250 % 128}.{os.getpid() % 250}"
HOSTS_MAX = 8
CLUSTER = "radiology"


@dataclass
class Site:
    """Everything that a test needs of a pool."""

    folder: Path
    pool: Pool
    wire: Wire
    cloud: FakeCloud
    hosts: list[str]
    storage: str
    network: str
    template: str
    first_node: str = "10.1.0.11/24"

    def file(self, **nodes: Any) -> PoolFile:
        """Write the pool file, with these keys of `[nodes]`, and return what was read."""
        first = self.pool.database.get("host", self.hosts[0])["address"]
        watch = nodes.pop("watch", {})
        administrator = nodes.pop("administrator", "administrator.json")
        spread = nodes.pop("spread", {})
        growth = nodes.pop("growth", {})
        wanted = {"count": 3, "template": "node image", "storage": "shared", "network": "storage network"} | nodes
        text = f"""
cluster = "{CLUSTER}"
administrator = {quoted(administrator)}
[xenapi]
coordinator = "https://{first}:{self.wire.port}"
password_file = "password"
certificates = "pki/ca.pem"
fail_over_s = 20.0
[nodes]
{toml(wanted)}
[addresses]
first = "{self.first_node}"
[spread]
{toml(spread)}
[growth]
{toml(growth)}
[watch]
{toml({"address_timeout_s": 20.0, "enrol_timeout_s": 20.0, "drain_timeout_s": 20.0} | watch)}
"""
        path = self.folder / "pool.toml"
        path.write_text(text)
        return poolfile.load(path, {})

    @contextmanager
    def backend(self, file: PoolFile, **more: Any) -> Iterator[Backend]:
        """Open the back end that the file names."""
        assert file.xenapi is not None
        with open_backend(file.xenapi, file.cluster, self.folder, **more) as backend:
            yield backend

    async def round(
        self, file: PoolFile, *, grower: Grower | None = None, metrics: Metrics | None = None, say: Say | None = None
    ) -> None:
        """Let the reconciler have one round."""
        metrics = metrics or Metrics()
        with self.backend(file) as backend:
            await round_once(
                file,
                backend,
                self.cloud,
                owner="test/1/1",
                say=say or self.said.append,
                grower=grower or Grower(self.folder / "pool.toml", metrics),
                metrics=metrics,
            )

    async def apply(self, file: PoolFile, *, owner: str = "", upgrade: bool = False) -> Report:
        """Make the pool as the file says."""
        with self.backend(file) as backend:
            async with open_lock(backend, owner or lease.this_process(), file.watch.lock_wait_s) as lock:
                run = Run(file, backend, self.cloud, lock, self.said.append)
                return await run.until_as(file.wanted(), upgrade=upgrade)

    @property
    def said(self) -> list[str]:
        """What runs have said."""
        return self.__dict__.setdefault("_said", [])

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the machines of ours by name; fails when two bear one name."""
        found = [each for each in self.pool.machines() if each["other_config"].get("fascicle_cluster") == CLUSTER]
        names = [each["name_label"] for each in found]
        assert len(set(names)) == len(names), names
        return dict(zip(names, found, strict=True))

    def per_host(self) -> list[int]:
        """Return how many machines run on each host."""
        running = [each["resident_on"] for each in self.nodes().values()]
        return [running.count(host) for host in self.hosts]

    def kill_host(self, host: str) -> None:
        """Take a host's power away."""
        self.wire.cut(host)
        self.pool.kill_host(host)

    def assert_exactly(self, count: int) -> None:
        """So many nodes run and have enrolled once each, and nothing is left over at the pool."""
        nodes = self.nodes()
        assert sorted(nodes) == [f"node-{number:02}" for number in range(1, count + 1)]
        assert {each["power_state"] for each in nodes.values()} <= {"Running"}
        assert {each["other_config"]["fascicle_stage"] for each in nodes.values()} <= {"serving"}
        assert sorted(self.cloud.view()) == sorted(nodes)
        self.assert_nothing_left(count)

    def assert_nothing_left(self, count: int) -> None:
        """The pool has, for `count` machines and the template, just the disks, cards and drives that they need."""
        base = self.pool.database.records
        left = [(each["name_label"], each["power_state"], each["other_config"]) for each in self.pool.machines()]
        assert len(left) == count, left
        assert len(base["VBD"]) == len(base["VDI"]) == 2 * count + 1
        assert len(base["VIF"]) == count + 1
        assert not base["task"], list(base["task"].values())
        assert not self.pool.sessions
        locks = [key for each in base["pool"].values() for key in each["other_config"]]
        assert locks == []
        assert self.pool.violations == []


def toml(table: dict[str, Any]) -> str:
    """Return a flat table as TOML."""
    return "\n".join(f"{key} = {_toml(value)}" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else repr(value)


def quoted(text: str) -> str:
    """Return a TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@cache
def certificates() -> Path:
    """Return a folder with an authority and a certificate of all hosts, made once: keys take their time."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    authority = pki.create_authority(folder)
    addresses = [f"{NETWORK}.{number + 1}" for number in range(HOSTS_MAX)]
    pki.issue(authority, folder / "pool", name="pool", role="gateway", hosts=addresses)
    return folder


@contextmanager
def open_site(folder: Path, *, hosts: int = 3, host_memory: int = 16 * GIB, room: int = 500 * GIB) -> Iterator[Site]:
    """Open a pool whose machines enrol at a gateway in memory."""
    pool, cloud = Pool(), FakeCloud()
    addresses = [f"{NETWORK}.{number + 1}" for number in range(hosts)]
    shutil.copytree(certificates(), folder / "pki")
    identity = folder / "pki" / "pool"
    (folder / "password").write_text(pool.secret + "\n")
    (folder / "password").chmod(0o600)
    made = [pool.add_host(f"host-{number}", address, host_memory) for number, address in enumerate(addresses, 1)]
    storage = pool.add_storage("shared", room, made)
    card = pool.database.make("network", name_label="storage network")
    template = pool.add_template("node image", storage, card, 2 * GIB)
    wire = Wire(pool, identity / "certificate.pem", identity / "key.pem")
    site = Site(folder, pool, wire, cloud, made, storage, card, template)
    site.first_node = addresses[0].rpartition(".")[0] + ".101/24"  # a loopback address each, where real nodes listen
    pool.on_boot, pool.on_halt = boots(pool, cloud), halts(pool, cloud)
    try:
        for host, address in zip(made, addresses, strict=True):
            wire.listen(host, address)
        yield site
    finally:
        wire.close()


def boots(pool: Pool, cloud: FakeCloud) -> Any:
    """Return what a machine does when it comes up: what its first-boot drive says."""

    def boot(machine: str) -> None:
        record = pool.database.get("VM", machine)
        disks = [pool.database.get("VBD", each)["VDI"] for each in record["VBDs"]]
        for image in [pool.contents[each] for each in disks if each in pool.contents]:
            told = read_drive(image)
            cloud.boot(told["name"], told["token"], told["domain"])

    return boot


def halts(pool: Pool, cloud: FakeCloud) -> Any:
    """Return what happens to a node whose machine ends."""
    return lambda machine: cloud.halt(pool.database.get("VM", machine)["name_label"])
