"""A real gateway (HTTP over TLS, UDP, its catalogue on disk) and nodes that speak the protocol, on free ports."""

import asyncio
import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.service import Running, open_gateway
from gateway.settings import GatewaySettings, NodeEntry
from transfer import heartbeat, pages, pki, receipts, tickets, tls
from transfer.api import Commit, Offer, Offered, OpenTransfer, Receipts, SignedReceipts
from transfer.credentials import Credentials, from_identity
from transfer.heartbeat import Heartbeat
from transfer.merkle import merkle_root
from transfer.objects import Identity, object_id
from transfer.pages import Page
from transfer.protocol.connection import ServerConnection
from transfer.protocol.frames import encode_control
from transfer.protocol.messages import (
    Bye,
    Check,
    Checked,
    Hello,
    List,
    Listed,
    Ping,
    Pong,
    Refused,
    Reserve,
    Reserved,
    Trash,
    Trashed,
    Welcome,
)
from transfer.receipts import Receipt, ReceiptBatch

TRANSFERS = "/api/v1/transfers"
GIB = 1 << 30
NODE_IDS = ("node-1", "node-2", "node-3")


class Identities:
    """The identity folders of one cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = pki.create_authority(folder / "ca")
        self._issue(authority, "gateway-1", "gateway")
        for node_id in NODE_IDS:
            self._issue(authority, node_id, "node")
        for name in ("ws-1", "ws-2"):
            self._issue(authority, name, "workstation")
        self._issue(authority, "op-1", "operator")
        self._issue(authority, "admin-1", "administrator")
        self._issue(authority, "janitor-1", "janitor")
        other = pki.create_authority(folder / "other-ca")
        pki.issue(other, folder / "stranger", name="ws-1", role="workstation", hosts=pki.LOCAL_HOSTS)

    def _issue(self, authority: pki.Authority, name: str, role: Any) -> None:
        pki.issue(authority, self.folder / name, name=name, role=role, hosts=pki.LOCAL_HOSTS)

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def public_key(self, name: str) -> str:
        return (self.folder / name / "signing.pub").read_text().strip()

    def context(self, name: str) -> ssl.SSLContext:
        return tls.client_context(self[name])

    def credentials(self, name: str, port: int) -> Credentials:
        return from_identity(f"https://127.0.0.1:{port}", self[name])


def settings(identities: Identities, data: Path, **others: Any) -> GatewaySettings:
    nodes = [NodeEntry(node_id=node_id, public_key=identities.public_key(node_id)) for node_id in NODE_IDS]
    fixed = {
        "gateway_id": "gateway-1",
        "data": str(data),
        "identity": str(identities["gateway-1"]),
        "listen": "127.0.0.1:0",
        "heartbeat_listen": "127.0.0.1:0",
        "node": nodes,
    }
    return GatewaySettings(**(fixed | others))


class Gateway:
    """A gateway that runs in a thread of its own."""

    def __init__(self, identities: Identities, config: GatewaySettings) -> None:
        self.identities = identities
        self.config = config
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        if self._problem is not None:
            raise self._problem
        self.port = self.running.port
        self.heartbeat_port = self.running.heartbeat_port
        self._clients = contextlib.ExitStack()
        self._made: dict[str | None, httpx.Client] = {}

    running: Running

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._problem = error
            self._ready.set()

    async def _serve(self) -> None:
        async with open_gateway(self.config) as (running, serving):
            self.running = running
            self._ready.set()
            await serving

    def stop(self) -> None:
        self._clients.close()
        self.running.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def client(self, name: str | None) -> httpx.Client:
        """Return the client with the certificate of `name` (None: with none); one is made for each."""
        if name not in self._made:
            if name is None:
                context = ssl.create_default_context(cafile=str(self.identities["ws-1"] / "ca.pem"))
            else:
                context = self.identities.context(name)
            url = f"https://127.0.0.1:{self.port}"
            made = httpx.Client(base_url=url, verify=context, timeout=20, trust_env=False)
            self._made[name] = self._clients.enter_context(made)
        return self._made[name]


class Node:
    """A node that speaks the protocol over TLS: confirms room, and signs for the objects that it was given."""

    def __init__(self, identities: Identities, node_id: str, gateway_key: str) -> None:
        self.node_id = node_id
        self.disk = "disk-1"
        self.key = pki.load_signing_key(identities[node_id])
        self.held: dict[bytes, Receipt] = {}
        self.quarantined: set[bytes] = set()
        self.forges_pages = False
        self.sick_folders: set[bytes] = set()  # first two bytes of ids: it cannot list them
        self.asked: list[Any] = []
        self.tickets: list[tickets.Ticket] = []
        self.refuses = False
        self.mute = False
        self._gateway_key = pki.public_key_from_hex(gateway_key)
        self._context = tls.server_context(identities[node_id], require_client=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._sequence = itertools.count(1)
        threading.Thread(target=self._accept, daemon=True).start()

    def beat(self, gateway: Gateway, **others: Any) -> None:
        """Send a heartbeat, and wait until the gateway has it."""
        gateway_client = gateway.client("op-1")
        beat = self.heartbeat(**others)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(heartbeat.sign(beat, self.key), ("127.0.0.1", gateway.heartbeat_port))
        for _ in range(200):
            nodes = {node["node_id"]: node for node in gateway_client.get("/api/v1/status").json()["nodes"]}
            if nodes[self.node_id]["address"] == f"127.0.0.1:{self.port}":
                return
        raise AssertionError("the heartbeat did not arrive")

    def heartbeat(self, **others: Any) -> Heartbeat:
        fixed = {
            "node_id": self.node_id,
            "incarnation": self.disk,
            "started_ns": 1,
            "sequence": next(self._sequence),
            "host": "127.0.0.1",
            "port": self.port,
            "failure_domain": "",
            "free_bytes": 100 * GIB,
            "used_bytes": 0,
            "objects": len(self.held),
            "flows": 0,
        }
        return Heartbeat(**(fixed | others))

    def sign(self, found: list[Receipt], transfer_id: str = "t") -> SignedReceipts:
        stored = receipts.sign(ReceiptBatch(self.node_id, self.disk, transfer_id, found), self.key)
        return SignedReceipts(batch=stored.batch, signature=stored.signature)

    def close(self) -> None:
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Close all open flows, as a restart does."""
        for flow in list(self._open):
            with contextlib.suppress(OSError):  # the other side has closed it
                flow.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        # a caller that goes away, or is dropped, ends its flow alone
        with contextlib.suppress(OSError), self._context.wrap_socket(raw, server_side=True) as flow:
            self._open.add(flow)
            try:
                self._speak(flow)
            finally:
                self._open.discard(flow)

    def _speak(self, flow: ssl.SSLSocket) -> None:
        peer = tls.peer_from_der(flow.getpeercert(True))
        connection = ServerConnection()
        while True:
            count = flow.recv_into(connection.reader.buffer())
            if not count:
                return
            connection.reader.received(count)
            for frame in connection.frames():
                if isinstance(frame, Bye):
                    return
                if not self.mute:
                    flow.sendall(self._answer(frame, connection, peer))

    def _answer(self, frame: Any, connection: ServerConnection, peer: tls.Peer) -> bytes:
        match frame:
            case Hello():
                ticket = tickets.verify(frame.ticket, self._gateway_key, now_s=0.0)  # all but the time is asserted
                if ticket.expires_at_s < time.time():  # one of half a second may be late: refused, as by a node
                    return encode_control(Refused(b"", "unauthorised", "the ticket has expired"))
                assert (ticket.holder, ticket.client_fingerprint) == (peer.name, peer.fingerprint)
                self.tickets.append(ticket)
                return connection.welcome(Welcome(1, self.node_id, self.disk, 1 << 20, 100 * GIB))
            case Ping():
                return encode_control(Pong(frame.token))
            case Reserve():
                self.asked.append(frame)
                if self.refuses:
                    return encode_control(Refused(b"", "full", "no room"))
                return encode_control(Reserved(frame.transfer_id, 100 * GIB, 0, len(self.held)))
            case Check():
                self.asked.append(frame)
                here = [self.held[key] for key in frame.object_ids if key in self.held]
                missing = [key for key in frame.object_ids if key not in self.held]
                sound = receipts.sign(ReceiptBatch(self.node_id, self.disk, "", here), self.key)
                return encode_control(Checked(sound, missing, []))
            case List():
                if not frame.quarantined and _folder_behind(frame.after) in self.sick_folders:
                    return encode_control(Refused(b"", "storage", "a folder cannot be listed"))
                return encode_control(self._list(frame))
            case Trash():
                return encode_control(Trashed([], True))
        raise AssertionError(frame)

    def _list(self, asked: List) -> Listed:
        end = min((one.ljust(32, b"\0") for one in self.sick_folders if one > asked.after), default=b"\xff" * 33)
        held = [self.held[one] for one in sorted(self.held) if asked.after < one < end][:2]
        gone = sorted(one for one in self.quarantined - self.held.keys() if one > asked.after)
        ids = gone if asked.quarantined else [one.object_id for one in held]
        last = ids[-1] if ids else asked.after
        complete = asked.quarantined or not any(one > last for one in self.held)
        if not asked.quarantined and not any(last < one < end for one in self.held) and len(end) == 32:
            complete, last = False, (int.from_bytes(end, "big") - 1).to_bytes(32, "big")
        nonce = bytes(16) if self.forges_pages else asked.nonce
        sound = [] if asked.quarantined else [msgspec.structs.replace(one, node_ids=[self.node_id]) for one in held]
        damaged = [one for one in gone if one[:2] not in self.sick_folders] if asked.quarantined else []
        untold = [one for one in gone if one[:2] in self.sick_folders] if asked.quarantined else []
        page = Page(self.node_id, self.disk, nonce, asked.after, last, complete, sound, damaged, untold)
        return pages.sign(page, self.key)


def _folder_behind(after: bytes) -> bytes:
    """Return the first two bytes of the next id that could be listed."""
    return ((int.from_bytes(after, "big") + 1) % (1 << 256) if after else 0).to_bytes(32, "big")[:2]


class Image(msgspec.Struct, frozen=True):
    """A made-up object: what a sender and a node say of it."""

    data: bytes
    identity: Identity
    name: str = ""

    @property
    def object_id(self) -> str:
        return object_id(self.data)

    def offered(self) -> Offered:
        return Offered(object_id=self.object_id, size_bytes=len(self.data), name=self.name)

    def receipt(self, *node_ids: str) -> Receipt:
        return Receipt(
            bytes.fromhex(self.object_id), len(self.data), len(self.data) // 2, "zstd", list(node_ids), self.identity
        )


def images(count: int, *, study: str = "1.2.3", seed: str = "a", patient: str = "P1") -> list[Image]:
    """Return `count` objects of one study, ten a series."""
    return [
        Image(
            data=f"{seed} {study} {number} ".encode() * 20,
            name=f"{seed}/{number:05}.dcm",
            identity=Identity(
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                sop_instance_uid=f"{study}.{number // 10}.{number}",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                study_instance_uid=study,
                series_instance_uid=f"{study}.{number // 10}",
                patient_id=patient,
                patient_name="Doe^Jane",
                study_date="20260101",
                modality="CT",
                instance_number=str(number),
            ),
        )
        for number in range(count)
    ]


def post(client: httpx.Client, path: str, body: Any = None, status: int = 200) -> Any:
    """POST a struct; return the answer's JSON."""
    response = client.post(path, content=msgspec.json.encode(body) if body is not None else b"")
    assert response.status_code == status, response.text
    return response.json()


def get(client: httpx.Client, path: str, status: int = 200, **wanted: Any) -> Any:
    """GET; return the answer's JSON."""
    response = client.get(path, params=wanted)
    assert response.status_code == status, response.text
    return response.json()


def upload(client: httpx.Client, sent: list[Image], holder: Node, replicas: int = 1) -> tuple[str, Any]:
    """Send `sent` to one node; return the transfer's id and the commit's answer."""
    go = post(client, TRANSFERS, OpenTransfer(replicas=replicas))
    transfer_id = go["transfer_id"]
    post(client, f"{TRANSFERS}/{transfer_id}/offer", Offer(objects=[image.offered() for image in sent]))
    signed = holder.sign([image.receipt(holder.node_id) for image in sent], transfer_id)
    post(client, f"{TRANSFERS}/{transfer_id}/receipts", Receipts(receipts=[signed]))
    return transfer_id, post(client, f"{TRANSFERS}/{transfer_id}/commit", claim(sent))


def claim(sent: list[Image]) -> Commit:
    """Return the commit that fits what was sent."""
    ids = {image.object_id for image in sent}
    return Commit(objects=len(ids), merkle_root=merkle_root(ids))


@contextlib.contextmanager
def closing_all(items: list[Any]) -> Iterator[list[Any]]:
    """Close them all afterwards."""
    try:
        yield items
    finally:
        for item in items:
            item.close()
