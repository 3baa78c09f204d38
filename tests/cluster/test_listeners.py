"""What listens: what other machines reach speaks TLS 1.3 of the cluster's authority; plain text stays inside."""

import contextlib
import socket
import ssl
import tomllib
from collections.abc import Iterator

import pytest

from bench.cluster import Cluster, open_cluster
from tests.cluster.wire import listening
from transfer import tls

pytestmark = pytest.mark.cluster
ROLES = ["gateway", "node-1", "node-2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with open_cluster(tmp_path_factory.mktemp("listeners"), nodes=2) as running:
        yield running


def plain_text(cluster: Cluster, role: str) -> set[str]:
    """Return the addresses that a role's configuration has for plain text: Prometheus' metrics, and nothing else."""
    if role == "gateway":
        return set()
    config = tomllib.loads((cluster.data / "nodes" / role / "node.toml").read_text())
    assert (config["plain"], config["paper_listen"]) == (False, "")
    assert config["metrics_listen"].startswith("127.0.0.1:")
    return {config["metrics_listen"]}


@pytest.mark.parametrize("role", ROLES)
def test_every_listener_speaks_tls_but_those_inside(cluster: Cluster, role: str) -> None:
    context = tls.client_context(cluster.data / "pki/workstation")
    inside = plain_text(cluster, role)
    found = [(host, port) for host, port in listening(cluster.pids()[role]) if f"{host}:{port}" not in inside]
    assert len(found) == 1  # one door each
    for host, port in found:
        with socket.create_connection((host, port), timeout=10) as raw:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            raw.settimeout(15)
            try:
                said = raw.recv(1000)
            except ConnectionError:
                said = b""
            assert not said.startswith(b"HTTP"), said
        with (
            socket.create_connection((host, port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            assert secured.version() == "TLSv1.3"
            named = tls.peer_from_der(secured.getpeercert(True))
            assert (named.name, named.role) == (role, "gateway" if role == "gateway" else "node")


@pytest.mark.parametrize("role", ROLES[1:])
def test_a_node_s_door_is_shut_without_a_certificate(cluster: Cluster, role: str) -> None:
    nobody = ssl.create_default_context(cafile=str(cluster.data / "pki/ca.pem"))
    inside = plain_text(cluster, role)
    for host, port in listening(cluster.pids()[role]):
        if f"{host}:{port}" in inside:
            continue
        assert said_to_nobody(nobody, host, port) == b""


def said_to_nobody(context: ssl.SSLContext, host: str, port: int) -> bytes:
    """Return what a caller without a certificate hears. TLS 1.3: that it is missing shows when it reads."""
    with (
        socket.create_connection((host, port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
        contextlib.suppress(ssl.SSLError, ConnectionError),  # to be hung up on is an answer of nothing
    ):
        secured.sendall(b"x")
        return secured.recv(100)
    return b""
