"""Hosts under libvirt's own test driver: its machines, pools, volumes, networks and errors, with what it leaves undone.

The driver has no bytes in its volumes: what is written to a drive is kept here, by path, and a machine that starts
reads its drive and enrols at the gateway in memory. It cannot resize: the volume is made anew with the other size. It
forgets everything with the last connection: so one stays open for each host. A host that `is_cut` raises what libvirt
raises.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import pytest

from tests.xen.fake_cloud import FakeCloud, read_drive
from tests.xen.kit import CLUSTER, toml
from xen import lease, poolfile
from xen.apply import Report, Run
from xen.holding import open_lock
from xen.libvirt.backend import LibvirtBackend, open_backend
from xen.observed import GIB, MIB, Machine, Power, Stage
from xen.poolfile import LibvirtTable, PoolFile

# With addresses: the driver makes up leases out of them, and crashes where there are none.
NETWORK = "<network><name>{name}</name><ip address='192.168.122.1' netmask='255.255.255.0'/></network>"
POOL = """<pool type='dir'><name>{name}</name><target><path>/{host}/{name}</path></target></pool>"""
TEMPLATE = """
<domain type='test'><name>node image</name><title>made from the node image</title>
 <metadata><a:note xmlns:a='urn:another'>kept by somebody</a:note></metadata>
 <memory unit='MiB'>512</memory><vcpu>1</vcpu><os><type>hvm</type></os>
 <devices>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/{host}/images/template.qcow2'/>
   <target dev='vda' bus='virtio'/></disk>
  <interface type='network'><source network='storage'/><model type='virtio'/></interface>
  <console type='pty'/>
 </devices>
</domain>"""


def failure(code: int, message: str) -> libvirt.libvirtError:
    """Return an error as libvirt raises it."""
    error = libvirt.libvirtError(message)
    error.err = (code, libvirt.VIR_FROM_RPC, message, libvirt.VIR_ERR_ERROR, None, None, None, -1, -1)
    return error


@dataclass
class TestHost:
    """One host: a connection to the test driver that can be cut. It is what `libvirt.open` gives."""

    __test__ = False
    name: str
    real: Any
    is_cut: bool = False

    def __getattr__(self, name: str) -> Any:
        if self.is_cut:
            raise failure(libvirt.VIR_ERR_RPC, "Cannot recv data: Connection reset by peer")
        return getattr(self.real, name)

    def isAlive(self) -> int:
        return int(not self.is_cut)

    def close(self) -> int:
        return 0

    def getHostname(self) -> str:
        return f"{self.name}.example.org"


@dataclass
class Hosts:
    """Everything that a test needs of some hosts."""

    folder: Path
    hosts: dict[str, TestHost]
    cloud: FakeCloud = field(default_factory=FakeCloud)
    contents: dict[str, bytes] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def open(self, uri: str) -> TestHost:
        """Return the connection to a host, as `libvirt.open` does."""
        host = self.hosts[Path(uri).stem]
        if host.is_cut:
            raise failure(libvirt.VIR_ERR_SYSTEM_ERROR, "unable to connect to server: No route to host")
        return host

    def path(self, **nodes: Any) -> Path:
        """Write the pool file, with these keys of `[nodes]`."""
        watch = {"address_timeout_s": 20.0, "enrol_timeout_s": 20.0, "drain_timeout_s": 20.0} | nodes.pop("watch", {})
        growth = nodes.pop("growth", {})
        wanted = {"count": 3, "template": "node image", "storage": "images", "network": "storage"} | nodes
        uris = ", ".join(f'"{uri}"' for uri in self.uris())
        path = self.folder / "pool.toml"
        path.write_text(
            f'cluster = "{CLUSTER}"\nadministrator = "administrator.json"\n[libvirt]\nuris = [{uris}]\n'
            f"[nodes]\n{toml(wanted)}\n[addresses]\ndomain = 'nodes.example.org'\n[watch]\n{toml(watch)}\n"
            f"[growth]\n{toml(growth)}\n"
        )
        return path

    def uris(self) -> list[str]:
        """Return the hosts' addresses."""
        return [f"test:///{self.folder}/{name}.xml" for name in self.hosts]

    def file(self, **nodes: Any) -> PoolFile:
        """Write the pool file and return what was read."""
        return poolfile.load(self.path(**nodes), {})

    @contextmanager
    def backend(self, file: PoolFile | None = None) -> Iterator[LibvirtBackend]:
        """Open the back end that the file names."""
        table = file.libvirt if file is not None else LibvirtTable(uris=self.uris())
        assert table is not None
        with open_backend(table, CLUSTER, self.folder, connect_to=self.open) as backend:
            yield backend

    async def apply(self, file: PoolFile, *, upgrade: bool = False) -> Report:
        """Make the hosts as the file says."""
        with self.backend(file) as backend:
            async with open_lock(backend, lease.this_process(), 0.0) as lock:
                run = Run(file, backend, self.cloud, lock, self.said.append)
                return await run.until_as(file.wanted(), upgrade=upgrade)

    def machines(self) -> list[Machine]:
        """Return the machines of ours, by observing."""
        with self.backend() as backend:
            return list(backend.observe().machines)

    def per_host(self) -> list[int]:
        """Return how many machines run on each host."""
        running = [each.host_id for each in self.machines() if each.power == Power.RUNNING]
        return [running.count(name) for name in self.hosts]

    def volumes(self, host: str, pool: str = "images") -> list[str]:
        """Return the names of a host's volumes."""
        return sorted(self.hosts[host].real.storagePoolLookupByName(pool).listVolumes())

    def domain(self, name: str) -> Any:
        """Return libvirt's handle of a machine."""
        for host in self.hosts.values():
            for each in host.real.listAllDomains():
                if each.name() == name:
                    return each
        raise AssertionError(f"no machine {name}")

    def assert_exactly(self, count: int) -> None:
        """So many nodes run and have enrolled once each; no volume, definition or lock is left over."""
        found = self.machines()
        assert [each.name for each in found] == [f"node-{number:02}" for number in range(1, count + 1)]
        assert {each.power for each in found} <= {Power.RUNNING}
        assert {each.stage for each in found} <= {Stage.SERVING}
        assert sorted(self.cloud.view()) == [each.name for each in found]
        names = [name for host in self.hosts for name in self.volumes(host) if name.startswith("fascicle.")]
        ours = [f"fascicle.{CLUSTER}.{each.name}.{each.machine_id[:8]}" for each in found]
        assert sorted(names) == sorted(f"{each}.{kind}" for each in ours for kind in ("disk", "drive"))
        for host in self.hosts.values():
            assert [each.name() for each in host.real.listAllNetworks() if "lock" in each.name()] == []
        assert sum(len(host.real.listAllDomains()) for host in self.hosts.values()) == count + len(self.hosts)


@contextmanager
def open_hosts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], memory_gib: int = 16
) -> Iterator[Hosts]:
    """Open hosts of these names, each with a template, two storage pools and two networks."""
    real_open = libvirt.open
    site = Hosts(folder, {})
    for name in names:
        (folder / f"{name}.xml").write_text(f"<node><memory>{memory_gib << 20}</memory></node>")
        site.hosts[name] = TestHost(name, real_open(f"test:///{folder}/{name}.xml"))
        _furnish(site.hosts[name])
    _complete_driver(site, monkeypatch)
    monkeypatch.setattr(libvirt, "open", site.open)
    try:
        yield site
    finally:
        for host in site.hosts.values():
            host.real.close()


def _furnish(host: TestHost) -> None:
    for domain in host.real.listAllDomains():
        domain.destroy()
        domain.undefine()
    for name in ("storage", "other"):
        host.real.networkDefineXML(NETWORK.format(name=name)).create()
    for name in ("images", "spare"):
        pool = host.real.storagePoolDefineXML(POOL.format(name=name, host=host.name))
        pool.create()
    size = f"<capacity unit='bytes'>{2 * GIB}</capacity><allocation>0</allocation>"
    volume = f"<volume><name>template.qcow2</name>{size}<target><format type='qcow2'/></target></volume>"
    host.real.storagePoolLookupByName("images").createXML(volume)
    host.real.defineXML(TEMPLATE.format(host=host.name))


def _complete_driver(site: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    create = libvirt.virStoragePool.createXML  # not what a test puts in its place

    def upload(volume: Any, stream: Any, offset: int, length: int, flags: int = 0) -> int:
        assert (offset, flags) == (0, 0)
        assert length == volume.info()[1]
        stream.path = volume.path()
        site.contents[stream.path] = b""
        return 0

    def send(stream: Any, chunk: bytes) -> int:
        taken = chunk[: 100 << 10]  # as a stream may: not all of it
        site.contents[stream.path] += taken
        return len(taken)

    def resize(volume: Any, capacity: int, flags: int = 0) -> int:
        definition = ET.fromstring(volume.XMLDesc())
        found = definition.find("capacity")
        assert found is not None
        assert int(found.text or 0) < capacity, "a disk shrinks"
        found.text = str(capacity)
        pool = volume.storagePoolLookupByVolume()
        volume.delete(0)
        create(pool, ET.tostring(definition, encoding="unicode"))
        return 0

    monkeypatch.setattr(libvirt.virStorageVol, "upload", upload)
    monkeypatch.setattr(libvirt.virStorageVol, "resize", resize)
    monkeypatch.setattr(libvirt.virStream, "send", send)
    monkeypatch.setattr(libvirt.virStream, "finish", lambda stream: 0)
    _after(monkeypatch, "create", functools.partial(boot, site))
    for name in ("destroy", "shutdown"):
        _after(monkeypatch, name, lambda domain: site.cloud.halt(domain.name()))


def _after(monkeypatch: pytest.MonkeyPatch, name: str, then: Callable[[Any], None]) -> None:
    real = getattr(libvirt.virDomain, name)

    def call(domain: Any, *words: Any) -> Any:
        answer = real(domain, *words)
        then(domain)
        return answer

    monkeypatch.setattr(libvirt.virDomain, name, call)


def boot(site: Hosts, domain: Any) -> None:
    """A machine comes up: it does what its drive says."""
    for source in ET.fromstring(domain.XMLDesc()).findall("devices/disk/source"):
        image = site.contents.get(source.get("file", ""))
        if image is not None:
            told = read_drive(image)
            site.cloud.boot(told["name"], told["token"], told["domain"])


__all__ = ["CLUSTER", "GIB", "MIB", "Hosts", "TestHost", "boot", "failure", "open_hosts"]
