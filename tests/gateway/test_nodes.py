"""Nodes as the gateway sees them: heartbeats, reservations, disks that were replaced, reads."""

import asyncio
import os
import socket
import time
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway import uploads
from gateway.liveness import Nodes, is_newer
from gateway.nodelink import NodeLink
from tests.gateway.kit import TRANSFERS, Gateway, Identities, Node, closing_all, get, images, post, settings, upload
from transfer import heartbeat, pki, tickets, tls
from transfer.api import Go, Offer, OpenRead, OpenTransfer
from transfer.errors import FascicleError, UnauthorisedError, UnreachableError
from transfer.protocol.messages import Ping, Pong, Reserve
from transfer.tickets import Ticket


def outcomes(gateway: Gateway) -> dict[str, float]:
    """Return the counts of heartbeats by outcome."""
    lines = gateway.client(None).get("/metrics").text.splitlines()
    prefix = 'fascicle_gateway_heartbeats_total{outcome="'
    counted = (line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix))
    return {outcome: float(count) for outcome, count in counted}


def send(gateway: Gateway, datagram: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(datagram, ("127.0.0.1", gateway.heartbeat_port))


def wait_outcome(gateway: Gateway, outcome: str, count: float) -> None:
    deadline_s = time.monotonic() + 10
    while outcomes(gateway).get(outcome, 0) < count:
        assert time.monotonic() < deadline_s, outcomes(gateway)


def test_bad_datagrams_are_counted_and_change_nothing(gateway: Gateway, nodes: list[Node], identities) -> None:
    good = heartbeat.sign(nodes[0].heartbeat(), nodes[0].key)
    send(gateway, good)
    wait_outcome(gateway, "taken", 4)
    send(gateway, good)
    wait_outcome(gateway, "replayed", 1)
    send(gateway, heartbeat.sign(nodes[0].heartbeat(free_bytes=1), nodes[1].key))
    wait_outcome(gateway, "unauthorised", 1)
    send(gateway, heartbeat.sign(nodes[0].heartbeat(node_id="node-9"), nodes[0].key))
    wait_outcome(gateway, "unauthorised", 2)
    send(gateway, b"")
    wait_outcome(gateway, "protocol", 1)
    send(gateway, os.urandom(9000))
    wait_outcome(gateway, "protocol", 2)
    nest = b"\x91" * 1050 + b"\xc0"  # behind the last field of what anybody may send
    whole = msgspec.msgpack.encode(nodes[0].heartbeat(incarnation="", host="h", failure_domain=""))
    send(gateway, bytes([whole[0] + 1]) + whole[1:] + nest + bytes(heartbeat.SIGNATURE_BYTES))
    wait_outcome(gateway, "protocol", 3)
    first = get(gateway.client("op-1"), "/api/v1/status")["nodes"][0]
    assert (first["node_id"], first["state"], first["free_bytes"]) == ("node-1", "live", 100 << 30)


def test_states_by_the_clock(nodes: list[Node]) -> None:
    known = Nodes(["node-1", "node-2"], silent_after_s=15)
    beat = nodes[0].heartbeat(started_ns=5, sequence=9)
    assert known.record(beat, now_s=100.0)
    assert [known.state("node-1", now_s) for now_s in (100.0, 115.0, 115.1)] == ["live", "live", "silent"]
    assert known.state("node-2", 100.0) == "unknown"
    assert not known.record(beat, now_s=200.0)
    assert known.state("node-1", 200.0) == "silent"
    assert not known.record(nodes[0].heartbeat(started_ns=4, sequence=99), now_s=200.0)
    assert known.record(nodes[0].heartbeat(started_ns=6, sequence=0), now_s=200.0)
    assert known.state("node-1", 200.0) == "live"
    assert is_newer(nodes[0].heartbeat(started_ns=6, sequence=1), nodes[0].heartbeat(started_ns=6, sequence=0))


def test_data_of_a_silent_node_stays_listed(identities: Identities, tmp_path: Path) -> None:
    gateway = Gateway(identities, settings(identities, tmp_path, silent_after_s=0.4))
    node = Node(identities, "node-1", identities.public_key("gateway-1"))
    node.beat(gateway)
    upload(gateway.client("ws-1"), images(1), node)
    client = gateway.client("op-1")
    while get(client, "/api/v1/status")["nodes"][0]["state"] == "live":
        pass
    assert get(client, "/api/v1/objects")["objects"][0]["node_ids"] == ["node-1"]
    problem = post(gateway.client("ws-1"), TRANSFERS, OpenTransfer(), status=503)
    assert (problem["code"], problem["retryable"]) == ("busy", True)
    assert "no storage node is live" in problem["message"]
    assert post(client, "/api/v1/reads", OpenRead(rights=["get"]), status=503)["code"] == "busy"
    node.close()
    gateway.stop()


def test_nodes_that_refuse_or_are_mute_are_left_out(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    nodes[0].refuses = True
    nodes[1].mute = True
    go = post(client, TRANSFERS, OpenTransfer())
    assert [node["node_id"] for node in go["nodes"]] == ["node-3"]
    problem = post(client, TRANSFERS, OpenTransfer(replicas=2), status=503)
    assert "1 nodes confirmed where 2 replicas are wished" in problem["message"]
    states = [each["state"] for each in get(gateway.client("op-1"), "/api/v1/status")["transfers"]]
    assert states.count("open") == 1, "the one that too few nodes confirmed is given up"
    nodes[0].refuses = nodes[1].mute = False
    assert len(post(client, TRANSFERS, OpenTransfer())["nodes"]) == 3


def test_the_best_nodes_confirm_and_the_others_are_believed(
    gateway: Gateway, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "ASKED_MAX", 1)
    client = gateway.client("ws-1")
    go = post(client, TRANSFERS, OpenTransfer())
    asked = {node.node_id for node in nodes if any(isinstance(frame, Reserve) for frame in node.asked)}
    assert (go["nodes"][0]["node_id"], len(go["nodes"])) == (*asked, 3)
    for node in nodes[:2]:
        node.refuses = True
    confirmed, believed = set(), 0
    for _ in range(20):  # whichever are best for a transfer: two are asked, and one that refuses is never named first
        response = client.post(TRANSFERS, content=msgspec.json.encode(OpenTransfer()))
        if response.status_code == 503:
            assert "0 nodes confirmed" in response.text
            continue
        named = [node["node_id"] for node in response.json()["nodes"]]
        confirmed.add(named[0])
        believed += len(named) - 1
    assert confirmed == {"node-3"}
    assert believed


def test_flow_that_a_restarted_node_dropped_is_opened_anew(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    for _ in range(3):
        assert len(post(client, TRANSFERS, OpenTransfer())["nodes"]) == 3
        for node in nodes:
            node.drop()
    assert nodes[0].tickets[0].rights == ["reserve", "check"]
    assert [node.node_id for node in nodes[0].tickets[0].nodes] == ["node-1"]


def test_flow_is_open_before_a_transfer_needs_it(gateway: Gateway, nodes: list[Node]) -> None:
    deadline_s = time.monotonic() + 10
    while not all(node.tickets for node in nodes):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert len(post(gateway.client("ws-1"), TRANSFERS, OpenTransfer())["nodes"]) == 3
    for node in nodes:
        node.beat(gateway)  # used of late, so it is left alone
    assert [len(node.tickets) for node in nodes] == [1, 1, 1]


@pytest.mark.parametrize(
    ("shown", "revoked", "error"),
    [
        ("node-1", False, None),
        ("node-1", True, UnauthorisedError),
        ("node-2", False, UnreachableError),
        ("gateway-1", False, UnreachableError),
    ],
)
def test_a_ticket_goes_to_the_node_that_it_is_for_alone(
    identities: Identities, shown: str, revoked: bool, error: type[FascicleError] | None
) -> None:
    made: list[str] = []
    key = pki.load_signing_key(identities["gateway-1"])
    mine = tls.peer_from_der(
        pki.load_certificate(identities["gateway-1"] / "certificate.pem").public_bytes(Encoding.DER)
    )
    ticket = tickets.sign(Ticket("t", mine.name, mine.fingerprint, ["reserve"], [], 1, 1, time.time() + 60), key)

    def make_ticket(node_id: str) -> bytes:
        made.append(node_id)
        return ticket

    async def ping(port: int) -> None:
        link = NodeLink("node-1", make_ticket, identities.context("gateway-1"), lambda _: revoked)
        try:
            assert await link.request(("127.0.0.1", port), Ping(1), Pong) == Pong(1)
        finally:
            link.close()

    with closing_all([Node(identities, shown, identities.public_key("gateway-1"))]) as (node,):
        with pytest.raises(error) if error else nullcontext():
            asyncio.run(ping(node.port))
        assert made == ([] if error else ["node-1"])


def test_wished_number_of_nodes_and_room(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    assert len(post(client, TRANSFERS, OpenTransfer(nodes=2))["nodes"]) == 2
    assert len(post(client, TRANSFERS, OpenTransfer(nodes=1, replicas=3))["nodes"]) == 3
    asked = [frame for node in nodes for frame in node.asked if isinstance(frame, Reserve)]
    go = post(client, TRANSFERS, OpenTransfer(bytes=3000, replicas=1))
    new = [frame for node in nodes for frame in node.asked if isinstance(frame, Reserve)][len(asked) :]
    assert {(frame.transfer_id, frame.size_bytes) for node in nodes for frame in node.asked[-1:]} == {
        (go["transfer_id"], 1000)
    }
    assert len(new) == 3
    assert post(client, TRANSFERS, OpenTransfer(bytes=1 << 45), status=507)["code"] == "full"
    problem = post(client, TRANSFERS, OpenTransfer(replicas=4), status=503)
    assert "4 replicas are wished and 3 nodes are live" in problem["message"]


def test_renewed_ticket_names_the_nodes_that_are_live_now(gateway: Gateway, nodes: list[Node], identities) -> None:
    client = gateway.client("ws-1")
    nodes[2].refuses = True
    go = post(client, TRANSFERS, OpenTransfer())
    assert len(go["nodes"]) == 2
    nodes[2].refuses = False
    response = client.post(f"{TRANSFERS}/{go['transfer_id']}/ticket")
    renewed = msgspec.json.decode(response.content, type=Go)
    assert len(renewed.nodes) == 3
    ticket = tickets.verify(renewed.ticket, pki.public_key_from_hex(identities.public_key("gateway-1")))
    assert ticket.transfer_id == go["transfer_id"]
    post(gateway.client("ws-2"), f"{TRANSFERS}/{go['transfer_id']}/ticket", status=403)
    post(client, f"{TRANSFERS}/unknown/ticket", status=404)


def test_replica_on_a_disk_that_was_replaced_does_not_count(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    sent = images(2)
    upload(client, sent, nodes[0])
    offer = Offer(objects=[image.offered() for image in sent])

    def wanted() -> list[str]:
        transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
        found: list[str] = post(client, f"{TRANSFERS}/{transfer_id}/offer", offer)["wanted"]
        return found

    assert wanted() == []
    send(gateway, heartbeat.sign(nodes[0].heartbeat(incarnation="disk-2"), nodes[0].key))
    while get(client, "/api/v1/objects")["objects"][0]["node_ids"]:
        pass
    assert wanted() == [image.object_id for image in sent]
    send(gateway, heartbeat.sign(nodes[0].heartbeat(incarnation="disk-1"), nodes[0].key))
    while not get(client, "/api/v1/objects")["objects"][0]["node_ids"]:
        pass
    assert wanted() == []


@pytest.mark.parametrize("rights", [["put"], ["reserve"], [], ["get", "put"]])
def test_readers_get_no_other_right(shared: tuple[Gateway, list[Node]], rights) -> None:
    assert (
        post(shared[0].client("ws-1"), "/api/v1/reads", OpenRead(rights=rights), status=403)["code"] == "unauthorised"
    )


def test_read_ticket(gateway: Gateway, nodes: list[Node], identities) -> None:
    response = gateway.client("op-1").post("/api/v1/reads", json={"rights": ["get", "check"]})
    go = msgspec.json.decode(response.content, type=Go)
    ticket = tickets.verify(go.ticket, pki.public_key_from_hex(identities.public_key("gateway-1")))
    assert (ticket.rights, ticket.holder, ticket.max_bytes) == (["check", "get"], "op-1", 0)
    assert [node.node_id for node in go.nodes] == ["node-1", "node-2", "node-3"]
    assert {node.public_key for node in go.nodes} == {identities.public_key(f"node-{number}") for number in (1, 2, 3)}
