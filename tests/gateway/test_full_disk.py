"""A gateway whose disk fills up refuses new transfers early, keeps what it promised, and goes on when there is room."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway import audit
from gateway.service import run
from tests.free import free_port
from tests.gateway.kit import (
    TRANSFERS,
    Gateway,
    Identities,
    Image,
    Node,
    claim,
    closing_all,
    get,
    images,
    post,
    settings,
)
from transfer import disk, pki
from transfer.api import Offer, OpenRead, OpenTransfer, Receipts
from transfer.errors import StorageError
from transfer.membership import Invite

DISK_MIB, LOW_MIB = 100, 40  # the reserve is 64
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own is mounted by root only")


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "gateway"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(data: Path, *, left_bytes: int) -> None:
    free = disk.free_bytes(str(data))
    with (data / "filler").open("ab") as file:
        os.posix_fallocate(file.fileno(), file.tell(), free - left_bytes)
    assert disk.free_bytes(str(data)) == left_bytes


@needs_mount
def test_a_full_disk_is_refused_early_and_gone_on_with(identities: Identities, data: Path) -> None:
    gateway = Gateway(identities, settings(identities, data))
    workstation, operator = gateway.client("ws-1"), gateway.client("op-1")
    first, second, many = images(40, seed="a"), images(40, seed="b"), images(1000, seed="c")
    with closing_all([Node(identities, "node-1", identities.public_key("gateway-1"))]) as (node,):
        node.beat(gateway)
        transfers = [post(workstation, TRANSFERS, OpenTransfer())["transfer_id"] for _ in range(3)]

        def commit(number: int, sent: list[Image]) -> None:
            where = f"{TRANSFERS}/{transfers[number]}"
            post(workstation, f"{where}/offer", Offer(objects=[each.offered() for each in sent]))
            signed = node.sign([each.receipt("node-1") for each in sent], transfers[number])
            post(workstation, f"{where}/receipts", Receipts(receipts=[signed]))
            post(workstation, f"{where}/commit", claim(sent))

        fill(data, left_bytes=LOW_MIB << 20)
        refused = post(workstation, TRANSFERS, OpenTransfer(), 507)
        assert (refused["code"], refused["retryable"]) == ("full", True)
        assert f"{LOW_MIB << 20} bytes free, below the reserve" in refused["message"]
        commit(0, first)

        fill(data, left_bytes=0)
        offer = Offer(objects=[image.offered() for image in many])
        full = post(workstation, f"{TRANSFERS}/{transfers[1]}/offer", offer, 507)
        assert full["message"].startswith("the catalogue has no room on its disk")
        codes = [operator.post("/api/v1/reads", json={"rights": ["get"]}).status_code for _ in range(40)]
        assert codes[-1] == 507  # after what was left of the trail's last page
        assert set(codes) == {200, 507}

        (data / "filler").unlink()
        post(operator, "/api/v1/reads", OpenRead(rights=["get"]))
        commit(1, second)
        post(workstation, f"{TRANSFERS}/{transfers[2]}/offer", offer)
        post(workstation, TRANSFERS, OpenTransfer())
        listed = {each["object_id"] for each in get(operator, "/api/v1/objects", limit=1000)["objects"]}
        assert listed == {image.object_id for image in [*first, *second]}
    gateway.stop()
    with contextlib.closing(sqlite3.connect(data / "catalogue.db")) as catalogue:
        assert catalogue.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert audit.verify(data, public_key(identities), []).count == codes.count(200) + 7


def test_a_gateway_whose_trail_cannot_be_flushed_ends_and_the_next_one_goes_on(
    identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, data = free_port(), tmp_path / "gateway"
    config = settings(identities, data, listen=f"127.0.0.1:{port}", authority=str(identities.folder / "ca"))
    answers: list[int] = []

    def fail(_: int) -> None:
        raise StorageError("the disk failed")

    def ask() -> None:
        context = identities.context("ws-1")
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=20, trust_env=False) as client:
            answers.append(when_up(client).status_code)
            monkeypatch.setattr(disk, "flush_data", fail)
            answers.append(client.post("/api/v1/invitations").status_code)  # which the trail must tell of

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(StorageError, match="the disk failed"):
        asyncio.run(run(config))
    asking.join()
    assert answers == [200, 403]
    monkeypatch.undo()
    again = Gateway(identities, config)
    post(again.client("admin-1"), "/api/v1/invitations", Invite(name="ct-1", role="workstation"))
    again.stop()
    assert audit.verify(data, public_key(identities), []).count >= 1


def when_up(client: httpx.Client) -> httpx.Response:
    for _ in range(200):
        with contextlib.suppress(httpx.ConnectError):  # not up yet
            return client.get("/health")
        time.sleep(0.05)
    raise AssertionError("the gateway does not come up")


def public_key(identities: Identities) -> Ed25519PublicKey:
    return pki.load_signing_key(identities["gateway-1"]).public_key()
