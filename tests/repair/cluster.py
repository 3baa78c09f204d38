"""Nodes of a cluster's folder without its gateway, as they are when an operator makes the catalogue anew."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from bench.cluster import FASCICLE, Cluster, Result, run
from tests.cluster.harness import listing
from transfer import credentials, tls

KEPT = ("object_id", "size_bytes", "stored_bytes", "encoding", "node_ids", "identity")


def described(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the listing but for the names that senders gave: what a rebuilt catalogue must say, too."""
    return [{key: entry[key] for key in KEPT} for entry in listing(cluster)]


def ask(cluster: Cluster, what: str) -> dict[str, Any]:
    """Return the gateway's answer to `GET /api/v1/WHAT`."""
    own = credentials.load(cluster.credentials)
    with httpx.Client(base_url=own.gateway, verify=tls.client_context(own), timeout=30) as client:
        answer: dict[str, Any] = client.get(f"/api/v1/{what}").json()
    return answer


@contextlib.contextmanager
def nodes_alone(data: Path) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Run every node of the folder, and nothing else."""
    running = {}
    with contextlib.ExitStack() as stack:
        for config in sorted(data.glob("nodes/*/node.toml")):
            running[config.parent.name] = stack.enter_context(node_alone(config))
        yield running


@contextlib.contextmanager
def node_alone(config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    log = config.with_name("alone.log").open("ab")
    with log:
        process = subprocess.Popen([*FASCICLE, "node", "serve", "--config", str(config)], stderr=log, stdout=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)


def rebuild(data: Path, *words: str) -> Result:
    """Run `fascicle gateway rebuild --json` to its end."""
    return run("gateway", "rebuild", "--config", data / "gateway/gateway.toml", "--json", *words, timeout_s=120)


def start_rebuild(data: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = [*FASCICLE, "gateway", "rebuild", "--config", str(data / "gateway/gateway.toml"), "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ)


def lose_catalogue(data: Path) -> None:
    """Delete the catalogue as a failed disk does: all of it."""
    found = list((data / "gateway").glob("catalogue.db*"))
    assert found
    for path in found:
        path.unlink()
