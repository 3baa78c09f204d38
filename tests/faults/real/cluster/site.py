"""A cluster's folder for a campaign, as `fascicle up` prepares it, and the parts that run on it.

    DATA/gateway, DATA/nodes/node-N, DATA/agent     each may be a disk of its own

Refuses to do: starting them.
"""

import json
import sqlite3
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fascicle import layout
from fascicle.ports import port_of
from tests.faults.real.cluster.clocks import Clocks
from tests.faults.real.cluster.nets import Nets
from tests.faults.real.cluster.parts import Part, command
from tests.faults.real.cluster.spread import WORKSTATION, certify, spread
from tests.free import free_port

GATEWAY: Final[dict[str, Any]] = {
    "silent_after_s": 6.0,  # three heartbeats
    "replica_grace_s": 600.0,
    "repair_every_s": 1.0,
    "stocktake_every_s": 20.0,
}
NODE: Final[dict[str, Any]] = {"reserve_bytes": 1 << 20}
AGENT: Final = """
state = "state"
[[destination]]
name = "cluster"
credentials = {credentials}
replicas = {replicas}
[spool]
reserve_bytes = 1048576
[scp]
listen = "127.0.0.1:{port}"
idle_timeout_s = 20.0
"""


class Site:
    """The folder below `data`, and its parts: `gateway`, `nodes`, `agent`."""

    def __init__(
        self,
        data: Path,
        *,
        nodes: int,
        replicas: int,
        plain: bool = False,
        nets: Nets | None = None,
        clocks: Clocks | None = None,
        node: Mapping[str, Any] | None = None,
        **gateway: Any,
    ) -> None:
        """Prepare everything; `gateway`, `node`: configuration; `nets` and `clocks` give each machine its own."""
        self.data, self.replicas, self.nets, self.clocks = data, replicas, nets, clocks
        for folder, keys in {
            "gateway": GATEWAY | gateway,
            **{f"nodes/node-{n + 1}": NODE | dict(node or {}) for n in range(nodes)},
        }.items():
            (data / folder).mkdir(parents=True, exist_ok=True)
            name = "gateway" if folder == "gateway" else "node"
            (data / folder / f"{name}.toml").write_text(layout.to_toml(keys))
        if nets is not None:
            certify(data, nets.addresses)
        made = layout.prepare(layout.Options(data=data, nodes=nodes, port=0, replicas=replicas, plain=plain))
        if nets is not None:
            spread(data, nets.addresses)
        self.held_ports = made.ports  # several campaigns run at once, and a killed part must find its port again
        self.credentials = made.credentials
        self.node_ports = {one.node_id: port_of(one.address) for one in made.places}
        self.gateway_config = made.gateway_config
        self.scp_port = free_port()
        self.logs = data / "logs"
        self.logs.mkdir(exist_ok=True)
        self.gateway = self.part("gateway", "gateway", "serve", "--config", made.gateway_config)
        self.nodes = [self.part(one.node_id, "node", "serve", "--config", one.config) for one in made.places]
        self.agent = self._agent()

    def advertise(self, node_id: str, port: int) -> None:
        """Have a node say that it is reached at another port."""
        config = self.node_folder_of(node_id) / "node.toml"
        told = tomllib.loads(config.read_text()) | {"advertise": f"127.0.0.1:{port}"}
        config.write_text(layout.to_toml(told))

    @property
    def parts(self) -> list[Part]:
        """All that serve."""
        return [self.gateway, *self.nodes, self.agent]

    def open_catalogue(self) -> sqlite3.Connection:
        """Open the gateway's catalogue to look at it."""
        return sqlite3.connect(f"file:{self.data / 'gateway/catalogue.db'}?mode=ro", uri=True)

    def part(self, name: str, *words: object) -> Part:
        """Return the part that runs a command; what is not a gateway or node runs on the workstation."""
        return Part(name, command(*words), self.logs / f"{name}.log", prepare=self.enter(name))

    def enter(self, name: str) -> Callable[[], None] | None:
        """Return what takes a process to the machine on which `name` runs; None where all is one."""
        if self.clocks is not None:
            return self.clocks.enter(name)
        if self.nets is None:
            return None
        return self.nets.enter(name if name in self.nets.addresses else WORKSTATION)

    def node_folder(self, node: Part) -> Path:
        """Return what is a node's disk."""
        return self.node_folder_of(node.name)

    def node_folder_of(self, node_id: str) -> Path:
        """Return what is the disk of a node."""
        return self.data / "nodes" / node_id

    def backlog(self) -> int | None:
        """Return how many images the agent has not delivered, as its report says; None before there is one."""
        try:
            report = json.loads((self.data / "agent/state/status.json").read_text())
        except (OSError, ValueError):
            return None
        return sum(each["waiting_objects"] + each["parked_objects"] for each in report["destinations"])

    def spooled(self) -> int:
        """Return how many files the agent's spool holds."""
        return sum(1 for _ in (self.data / "agent/spool/ready").glob("*"))

    def _agent(self) -> Part:
        folder = self.data / "agent"
        folder.mkdir(exist_ok=True)
        config = AGENT.format(credentials=json.dumps(str(self.credentials)), replicas=self.replicas, port=self.scp_port)
        (folder / "agent.toml").write_text(config)
        return self.part("agent", "agent", "run", "--config", folder / "agent.toml")
