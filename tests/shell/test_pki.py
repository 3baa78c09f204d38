"""The authority and the identity folders: what stands in them, who can read them, what a renewal keeps."""

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from transfer import credentials, pki
from transfer.credentials import Credentials
from transfer.errors import SettingsError


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.create_authority(tmp_path / "ca")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_creation_is_the_same_authority(authority: pki.Authority, tmp_path: Path) -> None:
    again = pki.create_authority(tmp_path / "ca")
    assert again.certificate == authority.certificate
    assert mode(tmp_path / "ca/ca.key.pem") == 0o600
    assert mode(tmp_path / "ca") == 0o700


def test_an_authority_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    lost = pki.create_authority(tmp_path)
    (tmp_path / "ca.pem").unlink()  # the key is written first
    made = pki.create_authority(tmp_path)
    assert made.certificate.public_key() != lost.certificate.public_key()
    assert pki.load_authority(tmp_path).certificate == made.certificate


def test_an_authority_with_another_key_is_refused(authority: pki.Authority, tmp_path: Path) -> None:
    pki.create_authority(tmp_path / "other")
    (tmp_path / "other/ca.key.pem").replace(tmp_path / "ca/ca.key.pem")
    with pytest.raises(SettingsError, match="not the key of"):
        pki.load_authority(tmp_path / "ca")


def test_a_certificate_says_who_what_where_and_for_how_long(authority: pki.Authority, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "n", name="node-1", role="node", hosts=["127.0.0.1", "::1", "store.example"])
    certificate = pki.load_certificate(tmp_path / "n/certificate.pem")
    assert certificate.subject.rfc4514_string() == "CN=node-1,OU=node"
    certificate.verify_directly_issued_by(authority.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert names.get_values_for_type(x509.DNSName) == ["store.example"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {usage.dotted_string for usage in usages} == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc < now < certificate.not_valid_after_utc < now + datetime.timedelta(days=826)
    assert certificate.serial_number.bit_length() > 64


@pytest.mark.parametrize(
    ("role", "signs"), [("node", True), ("gateway", True), ("workstation", False), ("operator", False)]
)
def test_an_identity_folder_holds_what_its_role_needs(
    authority: pki.Authority, tmp_path: Path, role: pki.Role, signs: bool
) -> None:
    folder = tmp_path / "identity"
    pki.issue(authority, folder, name="x", role=role)
    signing = {"signing.pem", "signing.pub"} if signs else set()
    assert {path.name for path in folder.iterdir()} == {"ca.pem", "certificate.pem", "key.pem"} | signing
    assert {mode(path) for path in folder.iterdir() if path.name in ("key.pem", "signing.pem")} == {0o600}
    assert mode(folder) == 0o700


def test_what_the_signing_key_signs_its_public_key_verifies(authority: pki.Authority, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "n", name="node-1", role="node")
    public = pki.public_key_from_hex((tmp_path / "n/signing.pub").read_text())
    public.verify(pki.load_signing_key(tmp_path / "n").sign(b"word"), b"word")


def test_renewal_changes_the_certificate_and_keeps_the_signing_key(authority: pki.Authority, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "n", name="node-1", role="node")
    certificate, signing = ((tmp_path / "n" / name).read_bytes() for name in ("certificate.pem", "signing.pem"))
    pki.issue(authority, tmp_path / "n", name="node-1", role="node")
    assert (tmp_path / "n/certificate.pem").read_bytes() != certificate
    assert (tmp_path / "n/signing.pem").read_bytes() == signing


def test_a_certificate_is_current_until_its_hosts_or_its_time_run_out(authority: pki.Authority, tmp_path: Path) -> None:
    assert not pki.is_current(tmp_path / "n")
    pki.issue(authority, tmp_path / "n", name="node-1", role="node", hosts=["127.0.0.1", "a.example"])
    assert pki.is_current(tmp_path / "n", hosts=["a.example", "127.0.0.1"])
    assert not pki.is_current(tmp_path / "n", hosts=["b.example"])
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=800)
    assert not pki.is_current(tmp_path / "n", now=later)
    earlier = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    assert not pki.is_current(tmp_path / "n", now=earlier)  # made while the clock was ahead


@pytest.mark.parametrize(("name", "host"), [("x" * 65, "a"), ("", "a"), ("x", "ä.example")])
def test_names_that_no_certificate_can_carry_are_refused(
    authority: pki.Authority, tmp_path: Path, name: str, host: str
) -> None:
    with pytest.raises(SettingsError):
        pki.issue(authority, tmp_path / "n", name=name, role="node", hosts=[host])
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_other_texts_are_no_public_key(text: str) -> None:
    with pytest.raises(SettingsError, match="64 hex digits"):
        pki.public_key_from_hex(text)


def test_another_kind_of_key_does_not_sign(authority: pki.Authority, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "n", name="node-1", role="node")
    (tmp_path / "n/key.pem").replace(tmp_path / "n/signing.pem")
    with pytest.raises(SettingsError, match="not an Ed25519 key"):
        pki.load_signing_key(tmp_path / "n")
    (tmp_path / "n/signing.pem").write_text("garbage")
    with pytest.raises(SettingsError, match="not a PEM private key"):
        pki.load_signing_key(tmp_path / "n")
    (tmp_path / "n/signing.pem").unlink()
    with pytest.raises(SettingsError, match="No such file"):
        pki.load_signing_key(tmp_path / "n")


def test_credentials_come_back_as_they_were_and_are_private(authority: pki.Authority, tmp_path: Path) -> None:
    pki.issue(authority, tmp_path / "me", name="ws", role="workstation")
    mine = credentials.from_identity("https://[::1]:8443", tmp_path / "me")
    credentials.save(mine, tmp_path / "c.json")
    assert credentials.load(tmp_path / "c.json") == mine
    assert mode(tmp_path / "c.json") == 0o600
    assert "PRIVATE" in mine.key
    assert "PRIVATE" not in repr(mine)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"gateway": "http://plain", "ca": "", "certificate": "", "key": ""}',
        '{"gateway": "https://h:1/path", "ca": "", "certificate": "", "key": ""}',
        '{"gateway": "https://h:1", "ca": "", "certificate": "", "key": "", "more": 1}',
    ],
)
def test_what_is_no_credentials_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(SettingsError, match=r"c\.json: not a credentials file"):
        credentials.load(tmp_path / "c.json")


def test_credentials_that_cannot_be_read_or_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        credentials.load(tmp_path / "absent")
    with pytest.raises(SettingsError, match="Is a directory"):
        credentials.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot write"):
        credentials.save(Credentials(gateway="https://h:1", ca="", certificate="", key=""), tmp_path / "file/c.json")
    with pytest.raises(SettingsError, match="not an identity folder"):
        credentials.from_identity("https://h:1", tmp_path)
