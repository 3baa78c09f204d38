"""Real storage nodes behind the XenAPI server's machines: each that is started enrols at a real gateway and serves.

A machine's disk is a folder of its own, named by the machine's uuid: it stays when the machine is halted, and a machine
made anew has an empty one. `python -m tests.xen.real` goes 1 -> 5 -> 30 -> 5 nodes while a transfer runs.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from experiments.generate import write_series
from fascicle.enrolling import Options, join_cluster
from tests.cluster.harness import contents
from tests.free import free_port
from tests.xen.fake_cloud import read_drive
from tests.xen.kit import Site, open_site
from transfer import credentials
from transfer.client import GatewayClient

FASTER = """
silent_after_s = 8.0
repair_every_s = 1.0
ticket_lifetime_s = 15.0
replica_grace_s = 60.0
"""


def fascicle(*words: object, code: int = 0, timeout: float = 900.0) -> Any:
    """Run a command with --json; return its object."""
    command = [sys.executable, "-m", "fascicle", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@dataclass
class Machines:
    """The guests: what runs on the server's machines."""

    site: Site
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def boot(self, machine: str) -> None:
        """The guest comes up: enrols if its disk is empty, and serves."""
        record = self.site.pool.database.get("VM", machine)
        disk = self.site.folder / "disks" / record["uuid"]
        config = disk / "node.toml"
        if not config.exists():
            told = self._told(record)
            options = Options(
                token=told["token"],
                data=disk,
                listen=told["advertise"],
                advertise=told["advertise"],
                failure_domain=told["domain"],
            )
            trio.run(join_cluster, options)
            config.write_text(config.read_text() + "\nscrub_bytes_per_s = 0\n")
        log = (disk / "node.log").open("ab")
        command = [sys.executable, "-m", "fascicle", "node", "serve", "--config", str(config)]
        with self.lock, log:
            self.nodes[machine] = subprocess.Popen(command, stdout=log, stderr=log)

    def halt(self, machine: str, number: int = signal.SIGTERM) -> None:
        """The guest ends."""
        with self.lock:
            process = self.nodes.pop(machine, None)
        if process is not None:
            process.send_signal(number)
            process.wait(30)

    def close(self) -> None:
        """End all."""
        for machine in list(self.nodes):
            self.halt(machine, signal.SIGKILL)

    def _told(self, record: dict[str, Any]) -> dict[str, str]:
        disks = [self.site.pool.database.get("VBD", each)["VDI"] for each in record["VBDs"]]
        (image,) = [self.site.pool.contents[each] for each in disks if each in self.site.pool.contents]
        return read_drive(image)


@dataclass
class Cloud:
    """A pool, a gateway, and a workstation that may send."""

    site: Site
    machines: Machines
    made: Path
    workstation: Path

    def scale(self, count: int) -> Any:
        """Bring the pool to so many nodes by the command."""
        return fascicle("xen", "scale", count, "--pool", self.site.folder / "pool.toml")

    def status(self) -> Any:
        """Return the gateway's status."""
        return fascicle("status", "--to", self.made / "administrator.json")

    def live(self) -> list[str]:
        """Return the names of the nodes that serve."""
        return sorted(each["node_id"] for each in self.status()["nodes"] if each["state"] == "live")

    def send(self, source: Path, *more: object) -> "subprocess.Popen[str]":
        """Start a sender."""
        words = [sys.executable, "-m", "fascicle", "send", str(source), "--to", str(self.workstation), "--json"]
        return subprocess.Popen(
            [*words, *map(str, more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
        )

    def assert_holds(self, sources: list[Path], out: Path) -> None:
        """Everything that was sent comes back bit for bit, once."""
        fascicle("get", "--all", out, "--to", self.workstation)
        sent: set[str] = set().union(*(contents(source) for source in sources))
        assert contents(out) == Counter(dict.fromkeys(sent, 1))

    def host_of(self) -> dict[str, str]:
        """Return each node's host."""
        return {name: each["resident_on"] for name, each in self.site.nodes().items()}


@contextlib.contextmanager
def open_real(folder: Path, *, hosts: int = 4) -> Iterator[Cloud]:
    """Open a pool whose machines are real nodes, and their gateway."""
    port, beats = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(open_site(folder, hosts=hosts))
        made = folder / "cluster"
        fascicle(
            *("init", made, "--host", "127.0.0.1", "--listen", "127.0.0.1", "--port", port),
            *("--heartbeat-port", beats, "--replicas", 1),
        )
        config = made / "gateway/gateway.toml"
        config.write_text(FASTER + config.read_text())
        machines = Machines(site)
        site.pool.on_boot, site.pool.on_halt = machines.boot, machines.halt
        log = stack.enter_context((folder / "gateway.log").open("ab"))
        command = [sys.executable, "-m", "fascicle", "gateway", "serve", "--config", str(config)]
        gateway = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(gateway.wait, 30)
        stack.callback(gateway.terminate)
        stack.callback(machines.close)
        site.file(count=0, administrator=str(made / "administrator.json"), watch=WATCH)
        wait_for(lambda: probe("127.0.0.1", port))
        workstation = join_workstation(made, folder)
        yield Cloud(site, machines, made, workstation)
        assert gateway.poll() is None, (folder / "gateway.log").read_text()[-2000:]


WATCH = {
    "address_timeout_s": 120.0,
    "enrol_timeout_s": 240.0,
    "drain_timeout_s": 600.0,
    "grace_s": 10.0,
    "every_s": 2.0,
    "lanes": 8,
}


def join_workstation(made: Path, folder: Path) -> Path:
    """Enrol a workstation; return its credentials."""
    token = fascicle("invite", "ct-1", "--role", "workstation", "--to", made / "administrator.json")["token"]
    return Path(fascicle("enroll", "--token", token, "--data", folder / "ct-1")["use"])


def probe(host: str, port: int) -> bool:
    """Tell whether somebody listens."""
    with socket.socket() as link:
        link.settimeout(1)
        return link.connect_ex((host, port)) == 0


def wait_for(probe_: Any, within_s: float = 60.0) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + within_s
    while not probe_():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def scaled_while_sending(cloud: Cloud, counts: list[int], *, images: int, rate: str) -> dict[str, Any]:
    """Scale through `counts` while a transfer runs from the first on; all of it is there in the end, bit for bit."""
    source = cloud.site.folder / "source"
    write_series(source, images, seed=7, rows=256, columns=256)
    seconds: list[float] = []
    shown: list[list[int]] = []
    running: list[bool] = []
    sender = None
    for count in counts:
        began = time.monotonic()
        cloud.scale(count)
        seconds.append(round(time.monotonic() - began, 1))
        assert cloud.live() == [f"node-{number:02}" for number in range(1, count + 1)]
        shown.append(cloud.site.per_host())
        if sender is None:
            sender = cloud.send(source, "--rate", rate)
        running.append(sender.poll() is None)
    assert sender is not None
    out, errors = sender.communicate(timeout=900)
    assert sender.returncode == 0, errors
    summary = json.loads(out.splitlines()[-1])
    assert (summary["objects"], summary["failed"]) == (images, 0)
    cloud.assert_holds([source], cloud.site.folder / "back")
    checked = fascicle("verify", "--deep", "--to", cloud.workstation)
    return {
        "counts": counts,
        "seconds": seconds,
        "per_host": shown,
        "transfer_still_ran_after": running,
        "sent": summary["objects"],
        "transfer_s": summary["seconds"],
        "verify": checked,
    }


def holders(cloud: Cloud) -> dict[str, list[str]]:
    """Return the nodes that hold each object, by the catalogue."""

    async def ask() -> dict[str, list[str]]:
        async with GatewayClient(credentials.load(cloud.workstation), patience_s=10) as client:
            return {each.object_id: each.node_ids async for each in client.iterate_objects()}

    return trio.run(ask)


def replicas_apart(cloud: Cloud, images: int) -> int:
    """Send with two replicas; no object has both on one host. Return how many objects that is."""
    source = cloud.site.folder / "twice"
    write_series(source, images, seed=8, rows=64, columns=64)
    sender = cloud.send(source, "--replicas", 2)
    out, errors = sender.communicate(timeout=300)
    assert sender.returncode == 0, (out, errors)
    return apart(cloud)


def apart(cloud: Cloud) -> int:
    """Return how many objects have two replicas or more, all on hosts of their own."""
    hosts = cloud.host_of()
    twice = [each for each in holders(cloud).values() if len(each) > 1]
    for each in twice:
        assert len({hosts[name] for name in each}) == len(each), each
    return len(twice)


def host_dies(cloud: Cloud, images: int) -> dict[str, Any]:
    """A host with nodes dies: others come up elsewhere, and every object has two replicas again, none on that host."""
    site = cloud.site
    count = len(site.nodes())
    assert replicas_apart(cloud, images) == images
    victim = site.hosts[-1]
    lost = {name for name, each in site.nodes().items() if each["resident_on"] == victim}
    held = sum(bool(lost & set(each)) for each in holders(cloud).values())
    assert lost
    assert held
    began = time.monotonic()
    machines = [key for key, each in site.pool.database.records["VM"].items() if each["resident_on"] == victim]
    for machine in machines:
        cloud.machines.halt(machine, signal.SIGKILL)
    site.wire.cut(victim)
    site.pool.kill_host(victim)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "fascicle", "xen", "reconcile", "--pool", str(site.folder / "pool.toml")],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(set(cloud.live()) - lost) == count, 240)
        replaced_s = time.monotonic() - began

        def whole() -> bool:
            return all(len(set(each) - lost) >= 2 for each in holders(cloud).values())

        wait_for(whole, 240)
        copied_s = time.monotonic() - began
    finally:
        keeper.terminate()
        keeper.wait(60)
    hosts = cloud.host_of()
    for each in holders(cloud).values():
        kept = [hosts[name] for name in each if name not in lost]
        assert victim not in kept
        assert len(set(kept)) == len(kept)
    cloud.assert_holds([site.folder / "twice"], site.folder / "after")
    return {
        "nodes": count,
        "lost_nodes": len(lost),
        "objects_that_lost_a_replica": held,
        "replaced_after_s": round(replaced_s, 1),
        "replicas_whole_after_s": round(copied_s, 1),
    }


def main() -> None:
    """Go through the counts, print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("counts", nargs="*", type=int, default=[1, 5, 30, 5])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rate", default="1Mbit/s")
    parser.add_argument("--host-dies", type=int, metavar="NODES", help="so many nodes, then a host dies")
    options = parser.parse_args()
    if options.host_dies:
        with tempfile.TemporaryDirectory() as folder, open_real(Path(folder)) as cloud:
            cloud.scale(options.host_dies)
            print(json.dumps(host_dies(cloud, 40)))
        return
    with tempfile.TemporaryDirectory() as folder, open_real(Path(folder)) as cloud:
        measured = scaled_while_sending(cloud, options.counts, images=options.images, rate=options.rate)
        measured["objects_with_replicas_on_two_hosts"] = replicas_apart(cloud, 20)
        print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
