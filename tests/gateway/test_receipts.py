"""Receipts and announcements: what the nodes signed gets in, nothing else; transfers belong to their owners."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from tests.gateway.kit import TRANSFERS, Gateway, Image, Node, claim, get, images, post, upload
from transfer import receipts
from transfer.api import Announcement, Named, Offer, OpenTransfer, Receipts, SignedReceipts
from transfer.receipts import ReceiptBatch

ANNOUNCEMENTS = "/api/v1/announcements"


@pytest.fixture
def sent() -> list[Image]:
    return images(3)


def open_offered(gateway: Gateway, sent: list[Image]) -> str:
    """Return the path of an open transfer that has offered `sent`."""
    client = gateway.client("ws-1")
    path = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer(replicas=2))['transfer_id']}"
    post(client, f"{path}/offer", Offer(objects=[image.offered() for image in sent]))
    return path


@pytest.fixture
def transfer(gateway: Gateway, nodes: list[Node], sent: list[Image]) -> str:
    return open_offered(gateway, sent)


def forged(node: Node, sent: list[Image], how: str) -> SignedReceipts:
    good = node.sign([image.receipt("node-1", "node-2") for image in sent])
    match how:
        case "altered":
            return replace(good, batch=good.batch.replace(b"zstd", b"raw!"))
        case "short signature":
            return replace(good, signature=good.signature[:10])
        case "no signature":
            return replace(good, signature=b"")
        case "another key":
            batch = receipts.read_unverified(receipts.Stored(good.batch, good.signature))
            stored = receipts.sign(batch, Ed25519PrivateKey.generate())
        case "unknown node":
            stored = receipts.sign(ReceiptBatch("node-9", "d", "t", []), node.key)
        case "unknown replica":
            stored = receipts.sign(
                ReceiptBatch("node-1", "d", "t", [image.receipt("node-9") for image in sent]), node.key
            )
        case _:
            raise AssertionError(how)
    return SignedReceipts(batch=stored.batch, signature=stored.signature)


@pytest.mark.parametrize(
    "how", ["altered", "short signature", "no signature", "another key", "unknown node", "unknown replica"]
)
def test_forged_receipts_are_refused_whole(shared: tuple[Gateway, list[Node]], sent: list[Image], how: str) -> None:
    gateway, nodes = shared
    transfer = open_offered(gateway, sent)
    client = gateway.client("ws-1")
    good = nodes[0].sign([image.receipt("node-1", "node-2") for image in sent])
    body = Receipts(receipts=[good, forged(nodes[0], sent, how)])
    assert post(client, f"{transfer}/receipts", body, status=403)["code"] == "unauthorised"
    assert post(client, f"{transfer}/receipts", Receipts(receipts=[])) == {"objects": 0}


def test_receipts_that_are_no_receipts(gateway: Gateway, nodes: list[Node], transfer: str) -> None:
    body = Receipts(receipts=[SignedReceipts(batch=b"\xc1garbage", signature=bytes(64))])
    assert post(gateway.client("ws-1"), f"{transfer}/receipts", body, status=400)["code"] == "protocol"


def test_object_counts_when_all_wished_replicas_are_known(
    gateway: Gateway, nodes: list[Node], transfer: str, sent: list[Image]
) -> None:
    client = gateway.client("ws-1")
    one = Receipts(receipts=[nodes[0].sign([image.receipt("node-1") for image in sent])])
    assert post(client, f"{transfer}/receipts", one) == {"objects": 0}
    two = Receipts(receipts=[nodes[1].sign([sent[0].receipt("node-2")]), nodes[2].sign([sent[1].receipt()])])
    assert post(client, f"{transfer}/receipts", two) == {"objects": 2}
    both = Receipts(receipts=[nodes[0].sign([sent[2].receipt("node-1", "node-3")])])
    assert post(client, f"{transfer}/receipts", both) == {"objects": 3}
    assert post(client, f"{transfer}/commit", claim(sent))["objects"] == 3
    listed = {item["object_id"]: item for item in get(client, "/api/v1/objects")["objects"]}
    assert listed[sent[0].object_id]["node_ids"] == ["node-1", "node-2"]
    assert listed[sent[1].object_id]["node_ids"] == ["node-1", "node-3"]


def test_what_a_receipt_says_of_a_disk_that_was_replaced_since_is_asked_of_its_node(
    gateway: Gateway, nodes: list[Node], transfer: str, sent: list[Image]
) -> None:
    """The receipt was on its way meanwhile; it names the other node and not that node's disk."""
    client = gateway.client("ws-1")
    both = nodes[0].sign([image.receipt("node-1", "node-2") for image in sent], transfer.rpartition("/")[2])
    nodes[1].disk = "disk-2"
    nodes[1].held[bytes.fromhex(sent[0].object_id)] = sent[0].receipt("node-2")  # sent there once more
    nodes[1].beat(gateway, flows=7)
    while get(client, "/api/v1/status")["nodes"][1]["flows"] != 7:
        pass
    while post(client, f"{transfer}/receipts", Receipts(receipts=[both])) != {"objects": 1}:
        pass  # the disk is in the catalogue a moment after the heartbeat is in the status
    refused = client.post(f"{transfer}/commit", content=msgspec.json.encode(claim(sent)))
    assert refused.status_code == 409


def test_receipt_of_an_object_that_was_not_offered_is_a_fact_and_counts_for_no_transfer(
    gateway: Gateway, nodes: list[Node], transfer: str, sent: list[Image]
) -> None:
    client = gateway.client("ws-1")
    (other,) = images(1, seed="other")
    body = Receipts(receipts=[nodes[0].sign([other.receipt("node-1", "node-2")])])
    assert post(client, f"{transfer}/receipts", body) == {"objects": 0}
    assert post(client, f"{transfer}/commit", claim([]))["objects"] == 0
    assert get(client, "/api/v1/objects")["objects"] == []
    again = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer(replicas=2))['transfer_id']}"
    assert post(client, f"{again}/offer", Offer(objects=[other.offered()]))["stored"] == [other.object_id]


@pytest.mark.parametrize("step", ["ticket", "offer", "receipts", "commit"])
@pytest.mark.parametrize(("caller", "path", "status"), [("ws-2", None, 403), ("ws-1", f"{TRANSFERS}/none", 404)])
def test_only_the_certificate_that_opened_it_may_use_a_transfer(
    shared: tuple[Gateway, list[Node]], sent: list[Image], step: str, caller: str, path: str | None, status: int
) -> None:
    gateway, _ = shared
    transfer = open_offered(gateway, sent)
    bodies = {"ticket": None, "offer": Offer(objects=[]), "receipts": Receipts(receipts=[]), "commit": claim([])}
    post(gateway.client(caller), f"{path or transfer}/{step}", bodies[step], status=status)


def test_identity_comes_from_the_node_and_the_first_word_stays(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    (image,) = images(1)
    upload(client, [image], nodes[0])
    other = replace(image, identity=replace(image.identity, patient_name="Roe^Richard"))
    upload(client, [other], nodes[1])
    (listed,) = get(client, "/api/v1/objects")["objects"]
    assert listed["identity"]["patient_name"] == "Doe^Jane"
    assert listed["node_ids"] == ["node-1", "node-2"]


def announcement(node: Node, sent: list[Image], names: list[Named] | None = None) -> Announcement:
    found = [Named(object_id=image.object_id, name=image.name) for image in sent]
    return Announcement(receipts=[node.sign([image.receipt(node.node_id) for image in sent])], names=names or found)


def test_announced_objects_are_visible_at_once_and_only_once(
    gateway: Gateway, nodes: list[Node], sent: list[Image]
) -> None:
    client = gateway.client("node-1")
    body = announcement(nodes[0], sent)
    receipt = post(client, ANNOUNCEMENTS, body)
    assert receipt["objects"] == 3
    assert post(client, ANNOUNCEMENTS, body) == receipt
    reader = gateway.client("op-1")
    listed = get(reader, "/api/v1/objects")["objects"]
    assert sorted(item["names"][0] for item in listed) == sorted(image.name for image in sent)
    assert [event["kind"] for event in get(reader, "/api/v1/events")["events"]] == ["objects stored", "study stored"]
    assert get(reader, "/api/v1/status")["transfers"][0]["state"] == "committed"


def test_node_announces_its_own_objects_under_plain_names_only(
    gateway: Gateway, nodes: list[Node], sent: list[Image]
) -> None:
    client = gateway.client("node-1")
    post(client, ANNOUNCEMENTS, announcement(nodes[1], sent), status=403)
    climbing = [Named(object_id=sent[0].object_id, name="../x")]
    post(client, ANNOUNCEMENTS, announcement(nodes[0], sent, climbing), status=400)
    unknown = [Named(object_id="0" * 64, name="x")]
    post(client, ANNOUNCEMENTS, announcement(nodes[0], sent, unknown), status=400)
    assert get(gateway.client("op-1"), "/api/v1/objects")["objects"] == []
