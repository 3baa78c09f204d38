"""One upload from open to commit, over real HTTP and TLS."""

import msgspec

from tests.gateway.kit import Gateway, Image, Node, get, images, post
from transfer import pki, tickets
from transfer.api import Commit, CommitReceipt, Offer, OpenTransfer, Receipts
from transfer.merkle import merkle_root

TRANSFERS = "/api/v1/transfers"


def upload(client, sent: list[Image], holder: Node, replicas: int = 1) -> tuple[str, dict]:
    go = post(client, TRANSFERS, OpenTransfer(replicas=replicas))
    transfer_id = go["transfer_id"]
    post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=[image.offered() for image in sent]))
    signed = holder.sign([image.receipt(holder.node_id) for image in sent], transfer_id)
    post(client, f"{TRANSFERS}/{transfer_id}/receipts", Receipts(receipts=[signed]))
    return transfer_id, post(client, f"{TRANSFERS}/{transfer_id}/commit", claim(sent))


def claim(sent: list[Image]) -> Commit:
    ids = {image.object_id for image in sent}
    return Commit(objects=len(ids), merkle_root=merkle_root(ids))


def test_whole_upload_makes_objects_visible_at_commit_and_not_before(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    sent = images(25)
    go = post(client, TRANSFERS, OpenTransfer(objects=25, bytes=1000))
    assert sorted(node["node_id"] for node in go["nodes"]) == ["node-1", "node-2", "node-3"]
    assert sum(node["weight"] for node in go["nodes"]) == 1.0
    transfer = f"{TRANSFERS}/{go['transfer_id']}"
    answer = post(client, f"{transfer}/offer", Offer(objects=[image.offered() for image in sent]))
    assert answer == {"wanted": [image.object_id for image in sent], "stored": []}
    for start, node in zip(range(0, 25, 10), nodes, strict=True):
        signed = node.sign([image.receipt(node.node_id) for image in sent[start : start + 10]])
        accepted = post(client, f"{transfer}/receipts", Receipts(receipts=[signed]))
        assert accepted == {"objects": min(start + 10, 25)}
    assert get(client, "/api/v1/objects")["objects"] == []
    assert get(client, "/api/v1/studies")["studies"] == []
    receipt = post(client, f"{transfer}/commit", claim(sent))
    assert receipt["objects"] == 25
    assert receipt["bytes"] == sum(len(image.data) for image in sent)
    listed = get(client, "/api/v1/objects")["objects"]
    assert [item["object_id"] for item in listed] == sorted(image.object_id for image in sent)
    (study,) = get(client, "/api/v1/studies")["studies"]
    assert (study["series"], study["instances"], study["patient_id"]) == (3, 25, "P1")
    kinds = [event["kind"] for event in get(client, "/api/v1/events")["events"]]
    assert kinds == ["objects stored", "study stored"]


def test_ticket_is_signed_and_bound_to_the_senders_certificate(gateway: Gateway, nodes: list[Node], identities) -> None:
    go = gateway.client("ws-1").post(TRANSFERS, content=msgspec.json.encode(OpenTransfer(replicas=2)))
    found = msgspec.json.decode(go.content, type=__import__("transfer.api", fromlist=["Go"]).Go)
    ticket = tickets.verify(found.ticket, pki.public_key_from_hex(identities.public_key("gateway-1")))
    assert ticket.transfer_id == found.transfer_id
    assert (ticket.holder, ticket.rights, ticket.replicas) == ("ws-1", ["put"], 2)
    assert len(ticket.client_fingerprint) == 64


def test_commit_receipt_is_signed_and_repeated_bit_for_bit(gateway: Gateway, nodes: list[Node], identities) -> None:
    client = gateway.client("ws-1")
    sent = images(3)
    transfer_id, first = upload(client, sent, nodes[0])
    again = client.post(f"{TRANSFERS}/{transfer_id}/commit", content=msgspec.json.encode(claim(sent)))
    assert again.json() == first
    receipt = msgspec.json.decode(again.content, type=CommitReceipt)
    fields = {key: value for key, value in first.items() if key != "signature"}
    key = pki.public_key_from_hex(identities.public_key("gateway-1"))
    key.verify(bytes.fromhex(receipt.signature), msgspec.json.encode(fields, order="sorted"))
