"""Tickets and certificates that do not allow what is asked: refused, with the reason, and nothing is stored."""

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from blake3 import blake3

from bench.cluster import Cluster, open_cluster, run
from bench.generate import ct_series
from tests.cluster.harness import assert_sent, objects_on_disk
from tests.cluster.wire import DATA, GET, HELLO, PUT, REFUSED, STORED, VERSION, WELCOME, Peer, frame
from transfer import credentials, pki, tickets, tls

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Node:
    """Where a node of the shared plain cluster listens, and what signs its tickets."""

    cluster: Cluster
    host: str
    port: int

    def ticket(self, **changes: object) -> bytes:
        """Return a ticket such as the gateway gives, with `changes`, signed by the gateway's real key."""
        named = tickets.TicketNode("node-1", self.host, self.port, "", "node-1")
        good = tickets.Ticket("test", "tester", "", ["put", "get"], [named], 1, 1 << 30, time.time() + 60)
        key = pki.load_signing_key(self.cluster.data / "gateway" / "identity")
        return tickets.sign(msgspec.structs.replace(good, **changes), key)

    def peer(self) -> Peer:
        return Peer(self.host, self.port)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with open_cluster(tmp_path_factory.mktemp("plain"), "--plain", nodes=1) as cluster:
        host, _, port = cluster.ready["nodes"][0]["address"].rpartition(":")
        yield Node(cluster, host, int(port))


def put(data: bytes, **changes: object) -> bytes:
    """Return PUT and its one DATA frame."""
    fields = {"object_id": blake3(data).digest(), "size": len(data), "encoding": "raw"} | changes
    body = bytes([DATA, 1, 0, 0]) + bytes(8) + data
    return frame(PUT, fields["object_id"], fields["size"], fields["encoding"], False, 0) + (
        len(body).to_bytes(4) + body
    )


def test_a_good_ticket_stores_and_a_receipt_comes(node: Node) -> None:
    data = next(ct_series(1, seed=77, rows=64, columns=64))
    with node.peer() as peer:
        peer.send(frame(HELLO, VERSION, node.ticket()))
        assert peer.read_frame()[0] == WELCOME
        peer.send(put(data))
        answer = peer.read_frame()
        while answer[0] not in (STORED, REFUSED):
            answer = peer.read_frame()
    assert answer[0] == STORED
    assert blake3(data).digest() in answer[1][0]


TICKETS: dict[str, Callable[[Node], bytes]] = {
    "expired": lambda node: node.ticket(expires_at_s=time.time() - 1),
    "altered": lambda node: node.ticket()[:-70] + b"\x00" + node.ticket()[-69:],
    "cut short": lambda node: node.ticket()[:40],
    "empty": lambda node: b"",
    "of another node": lambda node: node.ticket(nodes=[tickets.TicketNode("node-9", node.host, 1, "", "")]),
    "signed by a node": lambda node: tickets.sign(
        tickets.Ticket("test", "tester", "", ["put"], [], 1, 1 << 30, time.time() + 60),
        pki.load_signing_key(node.cluster.data / "nodes" / "node-1" / "identity"),
    ),
}


@pytest.mark.parametrize("kind", TICKETS)
def test_a_ticket_that_does_not_count_is_refused(node: Node, kind: str) -> None:
    before = len(objects_on_disk(node.cluster))
    with node.peer() as peer:
        peer.send(frame(HELLO, VERSION, TICKETS[kind](node)))
        answer = peer.read_frame()
        assert (answer[0], answer[1][1]) == (REFUSED, "unauthorised")
        with pytest.raises(ConnectionError):
            peer.read_frame()
    assert len(objects_on_disk(node.cluster)) == before


@pytest.mark.parametrize(("rights", "request_"), [(["get"], "put"), (["put"], "get")])
def test_a_ticket_is_good_for_its_rights_only(node: Node, rights: list[str], request_: str) -> None:
    data = b"\0" * 128 + b"DICM" + request_.encode()
    with node.peer() as peer:
        peer.send(frame(HELLO, VERSION, node.ticket(rights=rights)))
        assert peer.read_frame()[0] == WELCOME
        peer.send(put(data) if request_ == "put" else frame(GET, blake3(data).digest()))
        answer = peer.read_frame()
        while answer[0] != REFUSED:
            answer = peer.read_frame()
        assert answer[1][1] == "unauthorised"


def test_bytes_that_are_not_the_objects_are_refused(node: Node) -> None:
    before = len(objects_on_disk(node.cluster))
    with node.peer() as peer:
        peer.send(frame(HELLO, VERSION, node.ticket()))
        assert peer.read_frame()[0] == WELCOME
        peer.send(put(b"\0" * 128 + b"DICM" + b"these", object_id=blake3(b"others").digest()))
        answer = peer.read_frame()
        while answer[0] != REFUSED:
            answer = peer.read_frame()
        assert answer[1][1] in ("corrupt", "protocol")
    assert len(objects_on_disk(node.cluster)) == before


@pytest.fixture
def strangers(tmp_path: Path, cluster: Cluster) -> Path:
    """Credentials for the shared cluster, made by an authority of the same name that is not its own."""
    authority = pki.create_authority(tmp_path / "other")
    pki.issue(authority, tmp_path / "stranger", name="workstation", role="workstation")
    own = credentials.load(cluster.credentials)
    foreign = credentials.from_identity(own.gateway, tmp_path / "stranger")
    credentials.save(msgspec.structs.replace(foreign, ca=own.ca), tmp_path / "stranger.json")
    return tmp_path / "stranger.json"


def test_a_certificate_of_another_authority_opens_nothing(cluster: Cluster, strangers: Path, series: Path) -> None:
    result = run("send", series, "--to", strangers, "--json", timeout_s=120)
    assert result.code in (2, 3), result
    assert result.errors.startswith("fascicle: "), "one clear line, no traceback"
    assert "certificate" in result.errors


@pytest.mark.parametrize("role", ["gateway", "node-1"])
def test_no_certificate_no_service(cluster: Cluster, role: str) -> None:
    own = credentials.load(cluster.credentials)
    context = ssl.create_default_context(cadata=own.ca)
    if role == "gateway":
        with httpx.Client(base_url=own.gateway, verify=context) as client:
            assert client.get("/health").status_code == 200
            assert client.get("/api/v1/status").status_code in (401, 403)
        return
    host, _, port = cluster.ready["nodes"][0]["address"].rpartition(":")
    with pytest.raises((ssl.SSLError, ConnectionError)), Peer(host, int(port), context) as peer:
        peer.send(frame(HELLO, VERSION, b""))
        peer.read_frame()


def test_tls_older_than_1_3_is_refused(cluster: Cluster) -> None:
    context = tls.client_context(credentials.load(cluster.credentials))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, _, port = cluster.ready["nodes"][0]["address"].rpartition(":")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Peer(host, int(port), context)


def test_an_expired_certificate_is_refused(cluster: Cluster, tmp_path: Path, series: Path) -> None:
    authority = pki.load_authority(cluster.data / "pki")
    pki.issue(authority, tmp_path / "old", name="workstation", role="workstation", life=timedelta(seconds=-30))
    own = credentials.load(cluster.credentials)
    credentials.save(credentials.from_identity(own.gateway, tmp_path / "old"), tmp_path / "old.json")
    result = run("send", series, "--to", tmp_path / "old.json", "--json", timeout_s=120)
    assert result.code in (2, 3), result
    assert_sent(cluster.run("send", series), objects=8)
