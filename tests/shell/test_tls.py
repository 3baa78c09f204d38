"""TLS between the cluster's parts: who gets in, and who is refused."""

import datetime
import ssl
from pathlib import Path

import pytest

from transfer import credentials, pki, tls
from transfer.errors import SettingsError, UnauthorisedError


def shake(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "127.0.0.1") -> tuple[ssl.SSLObject, ...]:
    """Run a TLS handshake in memory to its end; raise what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    ends[1].write(b"ok")
    assert ends[0].read(2) == b"ok"
    return ends


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.create_authority(tmp_path / "ca")


@pytest.fixture
def server(authority: pki.Authority, tmp_path: Path) -> ssl.SSLContext:
    pki.issue(authority, tmp_path / "server", name="node-1", role="node", hosts=["127.0.0.1", "localhost"])
    return tls.server_context(tmp_path / "server", require_client=True)


def test_both_ends_learn_who_the_other_is(authority: pki.Authority, server: ssl.SSLContext, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "me", name="ct-scanner-1", role="workstation")
    client_end, server_end = shake(tls.client_context(tmp_path / "me"), server)
    assert client_end.version() == "TLSv1.3"
    seen = tls.peer_from_der(server_end.getpeercert(binary_form=True))
    assert (seen.name, seen.role) == ("ct-scanner-1", "workstation")
    assert seen.fingerprint == pki.load_certificate(tmp_path / "me/certificate.pem").fingerprint(_sha256()).hex()
    assert tls.peer_from_der(client_end.getpeercert(binary_form=True)).role == "node"


def _sha256():
    from cryptography.hazmat.primitives.hashes import SHA256

    return SHA256()


def test_credentials_do_what_the_identity_folder_does(
    authority: pki.Authority, server: ssl.SSLContext, tmp_path: Path
) -> None:
    pki.issue(authority, tmp_path / "me", name="ws", role="workstation")
    mine = credentials.from_identity("https://127.0.0.1:8443", tmp_path / "me")
    _, server_end = shake(tls.client_context(mine), server)
    assert tls.peer_from_der(server_end.getpeercert(binary_form=True)).name == "ws"


def test_a_client_of_another_authority_is_refused(server: ssl.SSLContext, tmp_path: Path) -> None:
    other = pki.create_authority(tmp_path / "other-ca")
    pki.issue(other, tmp_path / "stranger", name="ws", role="workstation")
    client = tls.client_context(tmp_path / "stranger")
    client.load_verify_locations(tmp_path / "ca/ca.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client, server)


def test_a_server_of_another_authority_is_refused(authority: pki.Authority, tmp_path: Path) -> None:
    other = pki.create_authority(tmp_path / "other-ca")
    pki.issue(other, tmp_path / "impostor", name="node-1", role="node", hosts=["127.0.0.1"])
    pki.issue(authority, tmp_path / "me", name="ws", role="workstation")
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed certificate in certificate chain"):
        shake(tls.client_context(tmp_path / "me"), tls.server_context(tmp_path / "impostor", require_client=True))


def test_an_expired_client_is_refused(authority: pki.Authority, server: ssl.SSLContext, tmp_path: Path) -> None:
    life = datetime.timedelta(minutes=-1)
    pki.issue(authority, tmp_path / "old", name="ws", role="workstation", life=life)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake(tls.client_context(tmp_path / "old"), server)


def test_a_server_under_a_name_that_is_not_its_own_is_refused(
    authority: pki.Authority, server: ssl.SSLContext, tmp_path: Path
) -> None:
    pki.issue(authority, tmp_path / "me", name="ws", role="workstation")
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake(tls.client_context(tmp_path / "me"), server, host="127.0.0.2")


def test_no_certificate_is_refused_where_one_is_required(
    authority: pki.Authority, server: ssl.SSLContext, tmp_path: Path
) -> None:
    nobody = ssl.create_default_context(cafile=str(tmp_path / "ca/ca.pem"))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake(nobody, server)


def test_no_certificate_is_let_in_where_none_is_required_and_is_nobody(server: ssl.SSLContext, tmp_path: Path) -> None:
    open_server = tls.server_context(tmp_path / "server", require_client=False)
    nobody = ssl.create_default_context(cafile=str(tmp_path / "ca/ca.pem"))
    _, server_end = shake(nobody, open_server)
    with pytest.raises(UnauthorisedError, match="showed no certificate"):
        tls.peer_from_der(server_end.getpeercert(binary_form=True))


def test_tls_1_2_is_refused(authority: pki.Authority, server: ssl.SSLContext, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "me", name="ws", role="workstation")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(tmp_path / "ca/ca.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(old, server)


def test_a_certificate_without_a_role_names_nobody(tmp_path: Path) -> None:
    authority = pki.create_authority(tmp_path / "ca")
    der = authority.certificate.public_bytes(_der())
    with pytest.raises(UnauthorisedError, match="one party and one role"):
        tls.peer_from_der(der)
    with pytest.raises(UnauthorisedError, match="cannot be read"):
        tls.peer_from_der(b"not a certificate")


def _der():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


@pytest.mark.parametrize("missing", ["ca.pem", "certificate.pem", "key.pem"])
def test_an_identity_that_is_not_whole_is_a_settings_error(
    authority: pki.Authority, tmp_path: Path, missing: str
) -> None:
    pki.issue(authority, tmp_path / "me", name="ws", role="workstation")
    (tmp_path / "me" / missing).unlink()
    with pytest.raises(SettingsError, match="not an identity folder"):
        tls.client_context(tmp_path / "me")
    (tmp_path / "me" / missing).write_text("garbage")
    with pytest.raises(SettingsError):
        tls.server_context(tmp_path / "me", require_client=True)


def test_another_partys_key_is_a_settings_error(authority: pki.Authority, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "me", name="ws", role="workstation")
    pki.issue(authority, tmp_path / "you", name="ws", role="workstation")
    (tmp_path / "you/key.pem").replace(tmp_path / "me/key.pem")
    with pytest.raises(SettingsError, match="KEY_VALUES_MISMATCH"):
        tls.client_context(tmp_path / "me")
