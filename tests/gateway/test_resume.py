"""Everything may be repeated, by anyone, after any crash; what a dead sender left on nodes is not sent again."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from gateway.settings import GatewaySettings
from tests.gateway.kit import NODE_IDS, TRANSFERS, Gateway, Identities, Node, claim, get, images, post, settings, upload
from transfer.api import Offer, OpenTransfer, Receipts
from transfer.client import GatewayClient
from transfer.errors import SettingsError
from transfer.protocol.messages import Check


def test_every_step_survives_a_restart_of_the_gateway(identities: Identities, tmp_path: Path) -> None:
    config = settings(identities, tmp_path / "gateway")
    node = Node(identities, "node-1", identities.public_key("gateway-1"))
    sent = images(7)
    offer = Offer(objects=[image.offered() for image in sent])
    receipts = Receipts(receipts=[node.sign([image.receipt("node-1") for image in sent])])
    answers = []
    transfer_id = ""
    for step in ("open", "offer", "receipts", "commit", "list"):
        gateway = Gateway(identities, config)
        node.beat(gateway)
        client = gateway.client("ws-1")
        if step == "open":
            transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
        elif step == "list":
            answers.append(len(get(client, "/api/v1/objects")["objects"]))
        else:
            body = {"offer": offer, "receipts": receipts, "commit": claim(sent)}[step]
            first = post(client, f"{TRANSFERS}/{transfer_id}/{step}", body)
            assert post(client, f"{TRANSFERS}/{transfer_id}/{step}", body) == first
            answers.append(first)
        gateway.stop()
    node.close()
    assert answers[0] == {"wanted": [image.object_id for image in sent], "stored": []}
    assert answers[1] == {"objects": 7}
    assert answers[2]["objects"] == 7
    assert answers[3] == 7


def test_receipts_again_after_the_commit(gateway: Gateway, nodes: list[Node]) -> None:
    client = gateway.client("ws-1")
    sent = images(3)
    transfer_id, _ = upload(client, sent, nodes[0])
    signed = nodes[0].sign([image.receipt("node-1") for image in sent], transfer_id)
    assert post(client, f"{TRANSFERS}/{transfer_id}/receipts", Receipts(receipts=[signed])) == {"objects": 3}
    offer = Offer(objects=[sent[0].offered()])
    assert post(client, f"{TRANSFERS}/{transfer_id}/offer", offer, status=409)["code"] == "conflict"


def test_what_a_dead_sender_left_on_a_node_is_found_by_asking(gateway: Gateway, nodes: list[Node]) -> None:
    sent = images(600)
    offer = Offer(objects=[image.offered() for image in sent])
    dead = gateway.client("ws-1")
    lost_id = post(dead, TRANSFERS, OpenTransfer())["transfer_id"]
    post(dead, f"{TRANSFERS}/{lost_id}/offer", offer)
    assert not any(isinstance(frame, Check) for node in nodes for frame in node.asked)
    for image in sent[:400]:  # durable, but the sender died before it handed on the receipts
        nodes[1].held[bytes.fromhex(image.object_id)] = image.receipt("node-2")
    client = gateway.client("ws-2")
    transfer_id = post(client, TRANSFERS, OpenTransfer())["transfer_id"]
    answer = post(client, f"{TRANSFERS}/{transfer_id}/offer", offer)
    assert answer["stored"] == [image.object_id for image in sent[:400]]
    assert answer["wanted"] == [image.object_id for image in sent[400:]]
    assert not any(frame.deep for frame in nodes[0].asked if isinstance(frame, Check))
    assert post(client, f"{TRANSFERS}/{transfer_id}/commit", claim(sent[:400]))["objects"] == 400


def test_receipts_of_another_open_transfer_count_at_the_offer(gateway: Gateway, nodes: list[Node]) -> None:
    sent = images(4)
    offer = Offer(objects=[image.offered() for image in sent])
    first, second = gateway.client("ws-1"), gateway.client("ws-2")
    first_id = post(first, TRANSFERS, OpenTransfer())["transfer_id"]
    post(first, f"{TRANSFERS}/{first_id}/offer", offer)
    signed = nodes[0].sign([image.receipt("node-1") for image in sent])
    post(first, f"{TRANSFERS}/{first_id}/receipts", Receipts(receipts=[signed]))
    second_id = post(second, TRANSFERS, OpenTransfer())["transfer_id"]
    assert post(second, f"{TRANSFERS}/{second_id}/offer", offer)["wanted"] == []
    assert post(second, f"{TRANSFERS}/{second_id}/commit", claim(sent))["objects"] == 4
    assert post(first, f"{TRANSFERS}/{first_id}/commit", claim(sent))["objects"] == 4


def test_of_too_many_open_transfers_the_oldest_is_abandoned(identities: Identities, tmp_path: Path) -> None:
    gateway = Gateway(identities, settings(identities, tmp_path, transfers_open_max=2))
    node = Node(identities, "node-1", identities.public_key("gateway-1"))
    node.beat(gateway)
    client = gateway.client("ws-1")
    ids = [post(client, TRANSFERS, OpenTransfer())["transfer_id"] for _ in range(3)]
    problem = post(client, f"{TRANSFERS}/{ids[0]}/offer", Offer(objects=[]), status=409)
    assert "abandoned; open a new one" in problem["message"]
    post(client, f"{TRANSFERS}/{ids[0]}/commit", claim([]), status=409)
    post(client, f"{TRANSFERS}/{ids[1]}/offer", Offer(objects=[]))
    node.close()
    gateway.stop()


def write_config(config: GatewaySettings, path: Path) -> Path:
    fields = msgspec.to_builtins(config)
    tables = [("", fields), *(("[[node]]", entry) for entry in fields.pop("node"))]
    # JSON's strings, numbers and truth values are TOML's too.
    lines = [[head, *(f"{key} = {json.dumps(value)}" for key, value in table.items())] for head, table in tables]
    path.write_text("\n".join(line for table in lines for line in table))
    return path


def start_process(path: Path) -> subprocess.Popen[bytes]:
    code = f"from pathlib import Path; from gateway.service import serve; serve(Path({str(path)!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)


async def test_killed_gateway_goes_on_where_it_was(identities: Identities, tmp_path: Path, free_ports) -> None:
    http, udp = free_ports
    config = settings(identities, tmp_path / "gateway", listen=f"127.0.0.1:{http}", heartbeat_listen=f"127.0.0.1:{udp}")
    path = write_config(config, tmp_path / "gateway.toml")
    process = start_process(path)
    async with GatewayClient(identities.credentials("ws-1", http), patience_s=20) as client:
        assert [node.state for node in (await client.status()).nodes] == ["unknown"] * len(NODE_IDS)
        process.kill()
        process.communicate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.status)  # patient: asks until the gateway is back
            process = start_process(path)
        process.send_signal(signal.SIGTERM)
        _, log = await trio.to_thread.run_sync(process.communicate)
    assert process.returncode == 0
    assert b"gateway_stopped" in log


def test_second_gateway_on_one_folder_is_refused(gateway: Gateway, identities: Identities) -> None:
    with pytest.raises(SettingsError, match="another gateway serves this folder"):
        Gateway(identities, gateway.config)


def test_port_in_use_is_named(gateway: Gateway, identities: Identities, tmp_path: Path) -> None:
    where = f"127.0.0.1:{gateway.port}"
    with pytest.raises(SettingsError, match=f"cannot listen on {where}"):
        Gateway(identities, settings(identities, tmp_path / "other", listen=where))
    where = f"127.0.0.1:{gateway.heartbeat_port}"
    with pytest.raises(SettingsError, match=f"heartbeats on UDP {where}"):
        Gateway(identities, settings(identities, tmp_path / "other", heartbeat_listen=where))
