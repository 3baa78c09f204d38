"""Whatever arrives at a port is answered or closed in time, costs no memory, and the port goes on serving."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cluster import Cluster, open_cluster, resident_peak_bytes
from tests.cluster.harness import assert_sent
from tests.cluster.wire import HELLO, PING, PUT, REFUSED, VERSION, Peer, frame, listening

pytestmark = pytest.mark.cluster
GROWTH_BYTES_MAX = 40_000_000
ROLES = ["gateway", "node-1", "node-2"]


@pytest.fixture(scope="module", params=["tls", "plain"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, once with TLS on the data plane and once without; node 1 and 2 take the paper's protocol too."""
    flags = ["--plain"] if request.param == "plain" else []
    with open_cluster(tmp_path_factory.mktemp("ports"), *flags, "--paper-port", "0", nodes=2) as running:
        yield running


GARBAGE: dict[str, bytes] = {
    "length 2^32-1": struct.pack(">I", 0xFFFFFFFF) + b"x" * 100_000,
    "length 0": bytes(100),
    "zeros": bytes(100_000),
    "random": os.urandom(100_000),
    "HTTP": b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n",
    "TLS hello cut short": bytes.fromhex("16030100c8010000c40303") + bytes(20),
    "a wrong version": frame(HELLO, VERSION + 98, b""),
    "a wrong first frame": frame(PUT, bytes(32), 10, "raw", False, 0),
    "an unknown frame type": frame(250, 1),
    "a field of another type": frame(HELLO, "one", 1),
    "an Erlang atom": struct.pack(">I", 6) + b"\x83d\x00\x02ok",
    "a huge Erlang list": struct.pack(">I", 6) + b"\x83l\xff\xff\xff\xff",
    "a DICOM association of 4 GiB": b"\x01\x00\xff\xff\xff\xff" + b"x" * 10_000,
    "nothing": b"",
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_answered_or_closed_and_costs_nothing(either: Cluster, role: str, what: str) -> None:
    pid = either.pids()[role]
    before = resident_peak_bytes(pid)
    addresses = listening(pid)
    assert addresses
    for host, port in addresses:
        with Peer(host, port) as peer:
            peer.say_all(GARBAGE[what])
            peer.read_to_end()  # within the peer's deadline, or it fails
    assert either.pids()[role] == pid
    assert resident_peak_bytes(pid) - before < GROWTH_BYTES_MAX


@pytest.mark.parametrize("role", ROLES)
def test_a_peer_that_says_half_a_frame_and_stays_silent_does_not_hold_others_up(
    either: Cluster, role: str, series: Path
) -> None:
    silent = [Peer(host, port) for host, port in listening(either.pids()[role]) for _ in range(20)]
    try:
        for peer in silent:
            peer.send(b"\x00\x00")
        assert either.run("send", series).code == 0
    finally:
        for peer in silent:
            peer.socket.close()


def test_heartbeats_that_are_not_signed_are_ignored(either: Cluster, series: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in _udp_ports(either.pids()["gateway"]):
            for data in (b"", b"x", bytes(65000), os.urandom(200)):
                sender.sendto(data, ("127.0.0.1", port))
    assert_sent(either.run("send", series), objects=8)


def _udp_ports(pid: int) -> set[int]:
    inodes = {os.readlink(entry)[8:-1] for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return {int(words[1].split(":")[1], 16) for words in lines if words[9] in inodes}


def test_a_refusal_says_why(tmp_path: Path) -> None:
    refusals = {
        "a wrong version": frame(HELLO, VERSION + 1, b""),
        "a ticket of nobody": frame(HELLO, VERSION, b"x" * 100),
        "no hello": frame(PING, 1),
    }
    with open_cluster(tmp_path / "cluster", "--plain", nodes=1) as cluster:
        host, _, port = cluster.ready["nodes"][0]["address"].rpartition(":")
        for data in refusals.values():
            with Peer(host, int(port)) as peer:
                peer.send(data)
                refused = peer.read_to_end()[4:]
            assert refused[:1] == bytes([REFUSED])
            assert b"protocol" in refused or b"unauthorised" in refused
