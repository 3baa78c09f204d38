"""One upload from open to commit, over real HTTP and TLS."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from msgspec.structs import replace

from tests.gateway.kit import TRANSFERS, Gateway, Image, Node, claim, get, images, post, upload
from transfer import pki, tickets
from transfer.api import OFFER_OBJECTS_MAX, CommitReceipt, Go, Offer, OpenTransfer, Receipts
from transfer.objects import Identity


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
    metrics = client.get("/metrics").text
    assert "fascicle_gateway_objects_durable_total 25.0" in metrics
    assert "fascicle_gateway_commits_total 1.0" in metrics
    assert 'fascicle_gateway_requests_total{operation="take_receipts",status="200"} 3.0' in metrics


def test_a_transfer_opens_with_its_first_offer(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    sent = images(4)
    upload(client, sent[:1], nodes[0])
    nodes[1].held[bytes.fromhex(sent[1].object_id)] = sent[1].receipt("node-2")
    unfinished = post(client, TRANSFERS, OpenTransfer(offered=[sent[1].offered()]))  # it reached the node, then no more
    assert "stored" not in unfinished
    go = post(client, TRANSFERS, OpenTransfer(offered=[image.offered() for image in sent[:3]]))
    assert go["stored"] == [sent[0].object_id, sent[1].object_id]
    transfer = f"{TRANSFERS}/{go['transfer_id']}"
    answer = post(client, f"{transfer}/offer", Offer(objects=[sent[3].offered()]))
    assert answer == {"wanted": [sent[3].object_id], "stored": []}
    signed = nodes[0].sign([image.receipt("node-1") for image in sent[2:]], go["transfer_id"])
    post(client, f"{transfer}/commit", replace(claim(sent), receipts=[signed]))
    listed = get(client, "/api/v1/objects")["objects"]
    assert [item["object_id"] for item in listed] == sorted(image.object_id for image in sent)
    assert {name for item in listed for name in item["names"]} == {image.name for image in sent}


def test_a_first_offer_is_judged_as_any_other(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    image = images(1)[0]
    upload(client, [image], nodes[0])
    longer = replace(image.offered(), size_bytes=len(image.data) + 1)
    assert post(client, TRANSFERS, OpenTransfer(offered=[longer]), status=409)["code"] == "conflict"
    climbing = replace(image.offered(), name="../x")
    assert post(client, TRANSFERS, OpenTransfer(offered=[climbing]), status=400)["code"] == "protocol"
    crowd = OpenTransfer(offered=[image.offered()] * (OFFER_OBJECTS_MAX + 1))
    assert post(client, TRANSFERS, crowd, status=400)["code"] == "protocol"
    states = [each["state"] for each in get(gateway.client("op-1"), "/api/v1/status")["transfers"]]
    assert states == ["committed"]


def test_ticket_is_signed_and_bound_to_the_senders_certificate(gateway: Gateway, nodes: list[Node], identities) -> None:
    go = gateway.client("ws-1").post(TRANSFERS, content=msgspec.json.encode(OpenTransfer(replicas=2)))
    found = msgspec.json.decode(go.content, type=Go)
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


def test_stored_objects_are_not_wanted_again_and_an_empty_second_commit_is_the_same_set(
    gateway: Gateway, nodes: list[Node]
) -> None:
    sent = images(5)
    upload(gateway.client("ws-1"), sent, nodes[0])
    client = gateway.client("ws-2")
    transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
    answer = post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=[image.offered() for image in sent]))
    assert answer == {"wanted": [], "stored": [image.object_id for image in sent]}
    assert post(client, f"{TRANSFERS}/{transfer_id}/commit", claim(sent))["objects"] == 5
    assert get(client, "/api/v1/status")["objects"] == 5


def test_names_of_one_object_are_all_kept(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    (image,) = images(1)
    twice = [replace(image, name="a/one.dcm"), replace(image, name="b/%FFtwo.dcm")]
    upload(client, twice, nodes[0])
    upload(client, [replace(image, name="c/three")], nodes[0])
    (listed,) = get(client, "/api/v1/objects")["objects"]
    assert listed["names"] == ["a/one.dcm", "b/%FFtwo.dcm", "c/three"]
    assert listed["identity"]["patient_name"] == "Doe^Jane"


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "a/../b", "a//b", "./a", "a/%2e%2e/b", "a%00b", "..%2f..%2fx", "x" * 256, "a/"],
)
def test_hostile_names_are_refused(shared: tuple[Gateway, list[Node]], name: str) -> None:
    client = shared[0].client("ws-1")
    transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
    offered = [replace(image, name=name).offered() for image in images(1)]
    problem = post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=offered), status=400)
    assert problem["code"] == "protocol"


def test_commit_that_does_not_match_says_the_numbers(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    sent = images(4)
    transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
    post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=[image.offered() for image in sent]))
    signed = nodes[0].sign([image.receipt("node-1") for image in sent[:3]])
    post(client, f"{TRANSFERS}/{transfer_id}/receipts", Receipts(receipts=[signed]))
    problem = post(client, f"{TRANSFERS}/{transfer_id}/commit", claim(sent), status=409)
    assert problem["code"] == "conflict"
    assert "commits 4 objects" in problem["message"]
    assert "here 3 are durable" in problem["message"]
    assert get(client, "/api/v1/objects")["objects"] == []
    assert post(client, f"{TRANSFERS}/{transfer_id}/commit", claim(sent[:3]))["objects"] == 3
    problem = post(client, f"{TRANSFERS}/{transfer_id}/commit", claim(sent), status=409)
    assert "was committed with 3 objects" in problem["message"]


def test_empty_commit(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
    assert post(client, f"{TRANSFERS}/{transfer_id}/commit", claim([]))["objects"] == 0
    assert get(client, "/api/v1/events")["events"] == []


def test_same_uid_with_other_bytes_is_kept_and_reported(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    first, second = images(2), images(2, seed="b")
    assert upload(client, first, nodes[0])[1]["conflicts"] == []
    conflicts = upload(client, second, nodes[1])[1]["conflicts"]
    assert conflicts == [
        {
            "sop_instance_uid": one.identity.sop_instance_uid,
            "object_ids": sorted([one.object_id, other.object_id]),
        }
        for one, other in zip(first, second, strict=True)
    ]
    assert len(get(client, "/api/v1/objects")["objects"]) == 4
    kinds = [event["kind"] for event in get(client, "/api/v1/events")["events"]]
    assert kinds.count("instance conflict") == 2


def test_conflict_within_one_transfer(gateway: Gateway, nodes: list[Node]) -> None:
    receipt = upload(gateway.client("ws-1"), images(1) + images(1, seed="b"), nodes[0])[1]
    assert [len(conflict["object_ids"]) for conflict in receipt["conflicts"]] == [2]


def test_study_event_counts_what_is_new_and_what_is_there(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    sent = images(25)
    upload(client, sent[:12], nodes[0])
    first_id = get(client, "/api/v1/events")["next"]
    transfer_id, _ = upload(client, sent, nodes[0])
    events = get(client, "/api/v1/events", after=first_id)["events"]
    assert [event["kind"] for event in events] == ["objects stored", "study stored"]
    assert sorted(events[0]["body"]["object_ids"]) == sorted(image.object_id for image in sent[12:])
    assert events[1]["body"] == {
        "transfer_id": transfer_id,
        "study_instance_uid": "1.2.3",
        "new_instances": 13,
        "instances": 25,
        "series": 3,
    }


def test_objects_that_are_not_dicom_are_listed_without_a_study(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    upload(client, [Image(b"any bytes", Identity(any_file=True), "notes.txt")], nodes[0])
    (listed,) = get(client, "/api/v1/objects")["objects"]
    assert listed["identity"] == {"any_file": True}
    assert get(client, "/api/v1/studies")["studies"] == []


def test_two_senders_of_one_study_at_once_both_commit_and_nothing_is_twice(gateway: Gateway, nodes: list[Node]) -> None:
    sent = images(30)
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(upload, gateway.client(name), sent, node)
            for name, node in (("ws-1", nodes[0]), ("ws-2", nodes[1]))
        ]
        assert [future.result()[1]["objects"] for future in done] == [30, 30]
    client = gateway.client("op-1")
    assert len(get(client, "/api/v1/objects")["objects"]) == 30
    assert get(client, "/api/v1/status")["objects"] == 30
    stored = [event for event in get(client, "/api/v1/events")["events"] if event["kind"] == "objects stored"]
    ids = [object_id for event in stored for object_id in event["body"]["object_ids"]]
    assert sorted(ids) == sorted(image.object_id for image in sent)


def test_sizes_are_held_against_what_is_known(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    known, fresh = images(1), images(1, seed="b")
    upload(client, known, nodes[0])
    transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
    path = f"{TRANSFERS}/{transfer_id}/offer"
    for item in (known[0].offered(), fresh[0].offered()):
        post(client, path, Offer(objects=[item]))
        problem = post(client, path, Offer(objects=[replace(item, size_bytes=item.size_bytes + 1)]), status=409)
        assert problem["code"] == "conflict"
    both = [fresh[0].offered(), replace(fresh[0].offered(), size_bytes=1)]
    post(client, path, Offer(objects=both), status=409)
    other = post(gateway.client("ws-2"), TRANSFERS, OpenTransfer())["transfer_id"]
    lie = Offer(objects=[replace(fresh[0].offered(), size_bytes=7)])
    post(gateway.client("ws-2"), f"{TRANSFERS}/{other}/offer", lie)  # its own claim; harms nobody
    post(client, path, Offer(objects=[fresh[0].offered()]))


def test_patients_with_one_id_or_none_are_not_taken_for_each_other(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    for study, name in (("1.1", "Doe^Jane"), ("1.2", "Roe^Richard"), ("1.3", "Doe^Jane")):
        (image,) = images(1, study=study, patient="")
        upload(client, [replace(image, identity=replace(image.identity, patient_name=name))], nodes[0])
    page = get(client, "/api/v1/studies", limit=2)
    assert page["next"] == "1.2"
    found = page["studies"] + get(client, "/api/v1/studies", after=page["next"])["studies"]
    assert [study["patient_name"] for study in found] == ["Doe^Jane", "Roe^Richard", "Doe^Jane"]
