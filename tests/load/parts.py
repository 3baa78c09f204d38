"""The parts under load, each a process of its own that is started and killed by itself: gateway, node, agent.

`fascicle up` makes their configuration and is stopped; what restarts a part here is the caller, so that the time until
it serves again is the part's alone. Refuses to do: load.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from bench.cluster import FASCICLE, start_cluster
from experiments.processes import GONE
from fascicle.layout import to_toml
from tests.free import free_port
from transfer import credentials, tls

SERVES_S: Final = 60.0
LOOK_S: Final = 0.01


class Part:
    """One role's process."""

    def __init__(self, name: str, words: tuple[str, ...], log: Path) -> None:
        self.name, self._words, self.log = name, words, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the one that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it need not serve yet."""
        with self.log.open("ab") as log:
            environment = {key: text for key, text in os.environ.items() if not key.startswith("FASCICLE_")}
            self._process = subprocess.Popen([*FASCICLE, *self._words], stdout=log, stderr=log, env=environment)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)

    def resident_bytes(self, field: str = "VmRSS") -> int:
        """Return what it has resident now, or (`VmHWM`) the most that it had."""
        with contextlib.suppress(*GONE):  # it has ended: 0
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} is gone; see {self.log}")


class Parts:
    """A gateway, a node and an agent with a C-STORE port, made in `folder`; they run once `start` was called."""

    def __init__(self, folder: Path, **gateway_settings: Any) -> None:
        cluster = start_cluster(folder, nodes=1)
        left = cluster.stop()
        assert not left, left
        self.folder, self.data = folder, folder / "data"
        self.credentials = self.data / "credentials.json"
        self.gateway_config = self.data / "gateway/gateway.toml"
        self.node_config = self.data / "nodes/node-1/node.toml"
        _change(self.gateway_config, **gateway_settings)
        loaded = credentials.load(self.credentials)
        self.url, self.context = loaded.gateway, tls.client_context(loaded)
        self.gateway_port = int(loaded.gateway.rpartition(":")[2])
        node = tomllib.loads(self.node_config.read_text())
        self.node_port = int(node["listen"].rpartition(":")[2])
        self._node_metrics = f"http://{node['metrics_listen']}/metrics"
        self.agent_port = free_port()
        self.agent_config = folder / "agent.toml"
        self.agent_settings: dict[str, Any] = {"max_associations": 32, "max_associations_per_address": 32}
        self.gateway = self._part("gateway", "gateway", "serve", "--config", str(self.gateway_config))
        self.node = self._part("node", "node", "serve", "--config", str(self.node_config))
        self.agent = self._part("agent", "agent", "run", "--config", str(self.agent_config))

    def _part(self, name: str, *words: str) -> Part:
        return Part(name, words, self.folder / f"{name}.log")

    def start(self, *, delivers: bool = True) -> None:
        """Start all three and wait until they serve; unless the agent `delivers`, its spool stays as it is."""
        scp = {"listen": f"127.0.0.1:{self.agent_port}", **self.agent_settings}
        lines = f"[scp]\n{to_toml(scp)}\n[spool]\nreserve_bytes = 0\n"
        credentials_path = self.credentials if delivers else self._nowhere()
        lines += f'\n[[destination]]\nname = "cloud"\ncredentials = "{credentials_path}"\nencoding = "raw"\n'
        self.agent_config.write_text(lines)
        for part, is_up in (
            (self.gateway, self.gateway_serves),
            (self.node, self.node_is_live),
            (self.agent, self.agent_listens),
        ):
            part.start()
            wait_for(is_up, part)

    def _nowhere(self) -> Path:
        """Return credentials of a gateway that never answers."""
        path = self.folder / "nowhere.json"
        loaded = credentials.load(self.credentials)
        credentials.save(msgspec.structs.replace(loaded, gateway="https://127.0.0.1:9"), path)
        return path

    def stop(self) -> None:
        """Stop all of them."""
        for part in (self.agent, self.node, self.gateway):
            part.stop()

    def client(self) -> httpx.Client:
        """Return a client of the gateway."""
        return httpx.Client(base_url=self.url, verify=self.context, timeout=10, trust_env=False)

    def gateway_serves(self) -> bool:
        """Tell whether `/health` is answered."""
        with contextlib.suppress(httpx.HTTPError), self.client() as client:  # not yet
            return client.get("/health").status_code == 200
        return False

    def node_is_live(self) -> bool:
        """Tell whether the gateway knows the node as live."""
        with contextlib.suppress(httpx.HTTPError), self.client() as client:  # not yet
            return [node["state"] for node in client.get("/api/v1/status").json()["nodes"]] == ["live"]
        return False

    def gateway_metrics(self) -> str:
        """Return the gateway's metrics."""
        with self.client() as client:
            return client.get("/metrics").text

    def node_metrics(self) -> str:
        """Return the node's metrics."""
        return httpx.get(self._node_metrics, timeout=10, trust_env=False).text

    def agent_listens(self) -> bool:
        """Tell whether the C-STORE port takes connections."""
        # that nobody listens yet is the answer
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.agent_port), timeout=5):
            return True
        return False


@contextlib.contextmanager
def open_parts(folder: Path, *, delivers: bool = True, **gateway_settings: Any) -> Iterator[Parts]:
    """Make and run the parts; stop them at the end."""
    parts = Parts(folder, **gateway_settings)
    try:
        parts.start(delivers=delivers)
        yield parts
    finally:
        parts.stop()


def wait_for(probe: Callable[[], bool], part: Part, within_s: float = SERVES_S) -> float:
    """Return how many seconds it took until `probe` was true of a part that was just started."""
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < within_s, f"{part.name} does not serve within {within_s:.0f} s"
        assert part.is_running, f"{part.name} has ended: {part.log.read_text()[-500:]}"
        time.sleep(LOOK_S)
    return time.monotonic() - began


def _change(path: Path, **changed: Any) -> None:
    """Set keys of a configuration that it does not have yet; tables come after them."""
    path.write_text(to_toml(changed) + path.read_text())
