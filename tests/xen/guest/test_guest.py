"""A node in a real guest under software emulation: booted from the image, enrolled, filled and read back; its netem.

Slow (no KVM is asked for): `make xen-guest`. The shape is the paper's (S2: 1 vCPU, 1 GB of memory, 3 GB of disk).
"""
# ruff: noqa: E402  (these need libvirt, and are looked for only where it is)

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (it needs libvirt-dev)")

from experiments import generate
from tests.cluster.harness import contents, digest, eventually
from tests.xen.guest import agent, hypervisor
from tests.xen.guest.hypervisor import ADDRESS, GUEST, Hypervisor

IMAGE = os.environ.get("FASCICLE_NODE_IMAGE", "")
BOOT_S = float(os.environ.get("FASCICLE_GUEST_BOOT_S", "1800"))
COMMAND_S = 600.0
pytestmark = [pytest.mark.campaign, pytest.mark.cluster, pytest.mark.timeout(4 * BOOT_S)]
# The probe must keep up with what it sends: at `adsl`'s 8 Mb/s that is 4 700 small packets a second, of which an
# emulated processor drops one in seven. So these are slower links, one without loss and one with it.
CALIBRATE = """
import json
from experiments.calibration import calibrate
from experiments.links import open_link
from experiments.profiles import Profile
found = {}
for profile in (Profile("narrow", 3e5, 4e5, 100.0), Profile("lossy", 8e5, 8e5, 100.0, 0.01)):
    with open_link(profile, seed=1) as link:
        found[profile.name] = {"method": link.method, "figures": calibrate(link), "shapers": link.notes["shapers"]}
print(json.dumps(found))
"""


@dataclass
class Site:
    """The guest and what is around it."""

    host: Hypervisor
    made: Path
    figures: dict[str, Any]

    def fascicle(self, *words: object, code: int = 0, timeout_s: float = COMMAND_S) -> Any:
        """Run a command where the guest is reached; return its object."""
        command = self.host.command(sys.executable, "-m", "fascicle", *words, "--json")
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == code, (done.stdout, done.stderr, self.console())
        return json.loads(done.stdout.splitlines()[-1])

    def console(self) -> str:
        """Return the end of the guest's console."""
        return self.host.console.read_text(errors="replace")[-6000:] if self.host.console.exists() else "no console"

    def domain(self) -> Any:
        """Return the guest."""
        return libvirt.open(self.host.uri).lookupByName("node-01")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not IMAGE:
        pytest.skip("FASCICLE_NODE_IMAGE names no node image; `make xen-guest` makes one and says where it is")
    if reason := hypervisor.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("guest")
    with hypervisor.open_hypervisor(folder, Path(IMAGE)) as host:
        opened = Site(host, folder / "made", {})
        ports = ("--port", 8443, "--heartbeat-port", 8444, "--listen", ADDRESS)
        begun = opened.fascicle("init", opened.made, "--host", ADDRESS, *ports, "--replicas", 1)
        with _serving(opened, Path(begun["config"]), folder / "gateway.log"):
            _apply(opened, folder)
            yield opened
            opened.figures["console"] = len(opened.console())
    print(json.dumps(opened.figures, indent=1))


@contextmanager
def _serving(opened: Site, config: Path, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        command = opened.host.command(sys.executable, "-m", "fascicle", "gateway", "serve", "--config", config)
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            eventually(lambda: "gateway_ready" in log.read_text(), within_s=60)
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)


def _apply(opened: Site, folder: Path) -> None:
    """Make the node by the command that an operator uses."""
    (folder / "pool.toml").write_text(f"""
cluster = "emulated"
administrator = "made/administrator.json"
[libvirt]
uris = ["{opened.host.uri}"]
[nodes]
count = 1
template = "node image"
storage = "images"
network = "guests"
vcpus = 1
memory_mib = 1024
disk_mib = 3072
[addresses]
first = "{GUEST}/24"
[watch]
address_timeout_s = {BOOT_S}
enrol_timeout_s = {BOOT_S}
""")
    started_s = time.monotonic()
    report = opened.fascicle("xen", "apply", "--pool", folder / "pool.toml", timeout_s=3 * BOOT_S)
    assert report["steps"] == {"make": 1, "configure": 1, "begin": 1, "await": 1}
    opened.figures["from_template_to_serving_s"] = round(time.monotonic() - started_s, 1)


def test_the_guest_has_the_papers_shape_and_its_first_boot_took_the_whole_disk(site: Site) -> None:
    asked = "nproc; df -B1 --output=size / | tail -1; hostname"
    code, said, error = agent.run(site.domain(), "/bin/sh", "-c", asked, timeout_s=300)
    assert code == 0, error
    processors, size, name = said.split()
    assert (processors, name) == ("1", "node-01")
    assert int(size) > 2.7e9
    (node,) = site.fascicle("status", "--to", site.made / "administrator.json")["nodes"]
    assert (node["node_id"], node["state"]) == ("node-01", "live")
    status = site.fascicle("xen", "status", "--pool", site.host.folder / "pool.toml")
    assert status["steps"] == 0


def test_the_token_is_gone_from_the_guest(site: Site) -> None:
    code, said, _ = agent.run(site.domain(), "/bin/ls", "/etc/fascicle", timeout_s=300)
    assert (code, said.split()) == (0, [])


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A CT series: real images where there are some, else generated ones of the paper's size."""
    real = Path(os.environ.get("FASCICLE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ct_head"
    if not real.is_dir():
        generate.write_series(tmp_path / "series", 60, seed=5)
        return tmp_path / "series"
    return real


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def test_a_series_comes_back_bit_for_bit(site: Site, series: Path, tmp_path: Path) -> None:
    images = {digest(path) for path in series.rglob("*") if path.is_file() and _is_dicom(path)}
    token = site.fascicle("invite", "ct-1", "--role", "workstation", "--to", site.made / "administrator.json")["token"]
    credentials = Path(site.fascicle("enroll", "--token", token, "--data", tmp_path / "ct-1")["use"])
    sent = site.fascicle("send", series, "--to", credentials, timeout_s=3600)
    assert not sent["failed"]
    got = site.fascicle("get", "--all", tmp_path / "back", "--to", credentials, timeout_s=3600)
    assert sent["objects"] == len(images) >= 60
    assert set(contents(tmp_path / "back")) == images
    site.figures["series"] = {key: sent[key] for key in ("objects", "bytes", "wire_bytes", "seconds", "encodings")}
    site.figures["read_back"] = got
    verified = site.fascicle("verify", "--deep", "--to", credentials, timeout_s=3600)
    site.figures["verified"] = verified


def test_netem_is_applied_and_calibrated_in_the_guest(site: Site) -> None:
    code, said, error = agent.run(site.domain(), "/usr/bin/python3", "-c", CALIBRATE, timeout_s=1800)
    assert code == 0, error
    found = json.loads(said.splitlines()[-1])
    assert {name: each["method"] for name, each in found.items()} == {"narrow": "netem", "lossy": "netem"}
    assert all("netem" in shaper for each in found.values() for shaper in each["shapers"])
    site.figures["netem"] = {name: each["figures"] for name, each in found.items()}
