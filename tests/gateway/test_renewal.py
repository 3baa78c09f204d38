"""Certificates are renewed while everything runs: the next handshake shows the new one, and what is open goes on."""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from gateway import renewal
from nodes.renewal import keep_certificate, renew
from tests.gateway.kit import Gateway, Identities, settings
from tests.shell.test_tls import shake
from transfer import enrolment, pki, tls
from transfer.errors import FascicleError
from transfer.membership import Revoke


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


@pytest.mark.parametrize(("days", "due"), [(0, False), (500, False), (560, True), (824, True)])
def test_it_is_due_when_a_third_of_its_life_is_left(identities: Identities, days: int, due: bool) -> None:
    certificate = pki.load_certificate(identities["ws-1"] / "certificate.pem")
    assert enrolment.is_due(certificate, certificate.not_valid_before_utc + datetime.timedelta(days=days)) is due
