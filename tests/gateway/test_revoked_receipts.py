"""Receipts of a node that was revoked count for no commit, whenever they came: its disk may be in other hands."""

from typing import Any

import msgspec
import pytest

from gateway import intake
from tests.gateway.kit import TRANSFERS, Gateway, Image, Node, claim, get, images, post
from transfer.api import Announcement, Offer, OpenTransfer, Receipts, SignedReceipts
from transfer.membership import Revoke


@pytest.fixture
def sent() -> list[Image]:
    return images(3)


def open_offered(gateway: Gateway, sent: list[Image], replicas: int) -> str:
    client = gateway.client("ws-1")
    path = f"{TRANSFERS}/{post(client, TRANSFERS, OpenTransfer(replicas=replicas))['transfer_id']}"
    post(client, f"{path}/offer", Offer(objects=[image.offered() for image in sent]))
    return path


def revoke(gateway: Gateway, name: str) -> None:
    post(gateway.client("admin-1"), "/api/v1/revocations", Revoke(name=name))


@pytest.fixture
def revoke_meanwhile(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revoke node-2 after receipts were verified, and before they are written."""
    ask = intake.on_younger_disks

    def revoked_first(*arguments: Any) -> Any:
        revoke(gateway, "node-2")
        return ask(*arguments)

    monkeypatch.setattr(intake, "on_younger_disks", revoked_first)


def must_not_commit(gateway: Gateway, path: str, sent: list[Image], late: list[SignedReceipts]) -> None:
    body = msgspec.structs.replace(claim(sent), receipts=late)
    answer = gateway.client("ws-1").post(f"{path}/commit", content=msgspec.json.encode(body))
    assert answer.status_code == 409, answer.text
    assert get(gateway.client("ws-1"), "/api/v1/objects")["objects"] == []


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("when", ["before", "after", "with the commit"])
def test_receipts_of_a_revoked_node_count_for_no_commit(
    gateway: Gateway, nodes: list[Node], sent: list[Image], when: str, replicas: int
) -> None:
    """Signed by the node itself (alone), or by another of a replica there."""
    path = open_offered(gateway, sent, replicas)
    signer = nodes[1] if replicas == 1 else nodes[0]
    holders = ["node-2"] if replicas == 1 else ["node-1", "node-2"]
    signed = [signer.sign([image.receipt(*holders) for image in sent], path.rpartition("/")[2])]
    if when == "before":
        assert post(gateway.client("ws-1"), f"{path}/receipts", Receipts(receipts=signed)) == {"objects": 3}
    revoke(gateway, "node-2")
    if when == "after":
        answer = gateway.client("ws-1").post(f"{path}/receipts", content=msgspec.json.encode(Receipts(receipts=signed)))
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")  # over, but not for ever: sent again
    must_not_commit(gateway, path, sent, signed if when == "with the commit" else [])
    assert post(gateway.client("ws-1"), f"{path}/offer", Offer(objects=[sent[0].offered()]))["stored"] == []
    good = [node.sign([image.receipt(node.node_id) for image in sent]) for node in (nodes[0], nodes[2])]
    late = msgspec.structs.replace(claim(sent), receipts=good)
    assert post(gateway.client("ws-1"), f"{path}/commit", late)["objects"] == 3


def test_a_node_that_is_revoked_while_its_receipts_are_verified_counts_for_no_commit(
    gateway: Gateway, nodes: list[Node], sent: list[Image], revoke_meanwhile: None
) -> None:
    path = open_offered(gateway, sent, 1)
    must_not_commit(gateway, path, sent, [nodes[1].sign([image.receipt("node-2") for image in sent])])


def test_a_node_that_is_revoked_while_it_announces_shows_nothing(
    gateway: Gateway, nodes: list[Node], sent: list[Image], revoke_meanwhile: None
) -> None:
    body = Announcement(receipts=[nodes[1].sign([image.receipt("node-2") for image in sent])], names=[])
    post(gateway.client("node-2"), "/api/v1/announcements", body, 409)
    assert get(gateway.client("ws-1"), "/api/v1/objects")["objects"] == []
