"""Certificates are renewed while everything runs: the next handshake shows the new one, and what is open goes on."""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

import agent.renewal
from agent.outbound import deliveries
from agent.settings import AgentSettings, DestinationSettings, SpoolSettings
from agent.tree import serve_agent
from gateway import renewal
from nodes.renewal import keep_certificate, renew
from tests.gateway.kit import Gateway, Identities, settings
from tests.shell.test_tls import shake
from transfer import credentials, enrolment, pki, tls
from transfer.errors import FascicleError
from transfer.joining import JoiningClient
from transfer.membership import Renewed, Revoke


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    config = settings(identities, tmp_path / "gateway", authority=str(identities.folder / "ca"))
    running = Gateway(identities, config)
    yield running
    running.stop()


@pytest.fixture
def node(identities: Identities, tmp_path: Path) -> Path:
    pki.install(identities["node-3"], tmp_path / "node")
    return tmp_path / "node"


def shown(context: ssl.SSLContext, identities: Identities) -> str:
    """Return the fingerprint of the certificate that a listener shows in a new handshake."""
    client_end, _ = shake(identities.context("ws-1"), context)
    return tls.peer_from_der(client_end.getpeercert(binary_form=True)).fingerprint


def kept(folder: Path) -> str:
    return tls.peer_from_der(pki.load_certificate(folder / "certificate.pem").public_bytes(Encoding.DER)).fingerprint


async def test_a_node_s(gateway: Gateway, identities: Identities, node: Path) -> None:
    listener, client = tls.server_context(node, require_client=True), tls.client_context(node)
    before = kept(node)
    open_client, open_server = shake(identities.context("ws-1"), listener)
    await renew(f"https://127.0.0.1:{gateway.port}", node, [listener, client])
    assert kept(node) != before
    assert shown(listener, identities) == kept(node)
    _, other = shake(client, tls.server_context(identities["node-1"], require_client=True))
    assert tls.peer_from_der(other.getpeercert(binary_form=True)).fingerprint == kept(node)
    open_client.write(b"still open")
    assert open_server.read(20) == b"still open"
    tls.server_context(node, require_client=True)  # the folder fits together after a restart


async def test_a_revoked_node_is_not_renewed_and_keeps_what_it_has(gateway: Gateway, node: Path) -> None:
    gateway.client("admin-1").post("/api/v1/revocations", json={"name": Revoke(name="node-3").name})
    before = kept(node)
    with pytest.raises(FascicleError) as refused:
        await renew(f"https://127.0.0.1:{gateway.port}", node, [])
    assert refused.value.code == "unauthorised"
    assert kept(node) == before


def test_the_gateway_s(identities: Identities, tmp_path: Path) -> None:
    pki.install(identities["gateway-1"], tmp_path / "identity")
    config = settings(
        identities, tmp_path / "data", identity=str(tmp_path / "identity"), authority=str(identities.folder / "ca")
    )
    listener = tls.server_context(tmp_path / "identity", require_client=False)
    before = renewal.own_peer(config)
    renewal.renew(config, [listener])
    after = renewal.own_peer(config)
    assert (after.name, after.role) == (before.name, before.role) == ("gateway-1", "gateway")
    assert after.fingerprint != before.fingerprint
    assert shown(listener, identities) == after.fingerprint


def old(authority: Path, folder: Path, name: str, role: pki.Role) -> Path:
    """Make an identity whose certificate is due from its first moment on: it is written an hour back."""
    life = datetime.timedelta(minutes=20)
    pki.issue(pki.load_authority(authority), folder, name=name, role=role, hosts=pki.LOCAL_HOSTS, life=life)
    return folder


def due_file(gateway: Gateway, folder: Path) -> Path:
    """Make the credentials of a workstation whose certificate is to be renewed."""
    identity = old(gateway.identities.folder / "ca", folder / "ct-1", "ct-1", "workstation")
    credentials.save(
        credentials.from_identity(f"https://127.0.0.1:{gateway.port}", identity), folder / "credentials.json"
    )
    return folder / "credentials.json"


def certificate_of(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.load(file).certificate.encode())


async def test_a_running_agent_s(gateway: Gateway, tmp_path: Path) -> None:
    """By the whole daemon: the file that every batch is sent with has the new certificate, and nothing else changed."""
    file = due_file(gateway, tmp_path)
    before = credentials.load(file)
    config = AgentSettings(
        state=str(tmp_path / "state"),
        destination=[DestinationSettings(name=name, credentials=str(file)) for name in ("one", "two")],
        spool=SpoolSettings(folder=str(tmp_path / "spool")),
    )
    with capture_logs() as logs, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_agent, config, deliveries(config))
            while enrolment.is_due(certificate_of(file)):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    after = credentials.load(file)
    assert msgspec.structs.replace(after, certificate=before.certificate) == before
    tls.client_context(after)  # the certificate is of the key
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each["file"] for each in logs if each["event"].startswith("certificate")] == [str(file)]


async def test_an_agent_that_may_not_renew_tells_of_it_and_keeps_what_it_has(gateway: Gateway, tmp_path: Path) -> None:
    file = due_file(gateway, tmp_path)
    before = file.read_bytes()
    gateway.client("admin-1").post("/api/v1/revocations", json={"name": "ct-1"})
    ends = f"{certificate_of(file).not_valid_after_utc:%Y-%m-%d}"
    with capture_logs() as logs, trio.move_on_after(1):
        await agent.renewal.keep_certificates([file, tmp_path / "lost.json"])
    told = [(each["event"], Path(each["file"]).name, each["code"], each["ends"]) for each in logs]
    assert told == [
        ("certificate_not_renewed", "credentials.json", "unauthorised", ends),
        ("certificate_not_renewed", "lost.json", "settings", ""),
    ]
    assert file.read_bytes() == before


@pytest.mark.parametrize("party", ["node", "agent"])
async def test_a_certificate_of_a_gateway_whose_clock_is_ahead_is_not_taken(
    gateway: Gateway, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, party: str
) -> None:
    """Else it would be refused until that moment, with nobody to mend it: who has no good one cannot ask."""
    file = due_file(gateway, tmp_path)
    before = (file.read_bytes(), kept(node))
    monkeypatch.setattr(pki, "CLOCK_SKEW", -datetime.timedelta(days=365))  # what new ones begin before now
    with pytest.raises(FascicleError, match="set the gateway's clock"):
        if party == "node":
            await renew(f"https://127.0.0.1:{gateway.port}", node, [])
        else:
            await agent.renewal.renew(file, patience_s=0)
    assert (file.read_bytes(), kept(node)) == before


async def test_a_file_that_was_enrolled_anew_meanwhile_is_left_alone(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = due_file(gateway, tmp_path)
    fresh = credentials.from_identity(f"https://127.0.0.1:{gateway.port}", gateway.identities["ws-1"])
    asked = JoiningClient.renew_certificate

    async def replaced_while_it_asks(client: JoiningClient) -> Renewed:
        answer = await asked(client)
        credentials.save(fresh, file)
        return answer

    monkeypatch.setattr(JoiningClient, "renew_certificate", replaced_while_it_asks)
    with pytest.raises(FascicleError, match="was changed while"):
        await agent.renewal.renew(file, patience_s=0)
    assert credentials.load(file) == fresh


async def test_a_gateway_without_the_authority_tells_that_its_certificate_ends(
    identities: Identities, tmp_path: Path
) -> None:
    identity = old(identities.folder / "ca", tmp_path / "identity", "gateway-1", "gateway")
    with capture_logs() as logs:
        Gateway(identities, settings(identities, tmp_path / "data", identity=str(identity))).stop()
    told = [log for log in logs if log["event"] == "certificate_not_renewed"]
    assert [(log["log_level"], log["code"]) for log in told] == [("warning", "settings")]
    assert "no authority is here" in told[0]["reason"]


async def test_a_node_that_knows_no_gateway_tells_that_its_certificate_ends(
    identities: Identities, tmp_path: Path
) -> None:
    identity = old(identities.folder / "ca", tmp_path / "identity", "node-1", "node")
    with capture_logs() as logs, trio.move_on_after(0.2):
        await keep_certificate("", identity, [])
    assert [(log["event"], log["code"]) for log in logs] == [("certificate_not_renewed", "settings")]


@pytest.mark.parametrize(("days", "due"), [(-1, True), (0, False), (500, False), (560, True), (824, True)])
def test_it_is_due_when_a_third_of_its_life_is_left(identities: Identities, days: int, due: bool) -> None:
    certificate = pki.load_certificate(identities["ws-1"] / "certificate.pem")
    assert enrolment.is_due(certificate, certificate.not_valid_before_utc + datetime.timedelta(days=days)) is due
