"""The cluster's own public key infrastructure: one private authority, one identity folder a party (design section 10).

An identity folder holds `ca.pem`, `certificate.pem` and `key.pem` (ECDSA P-256, X.509 v3 as RFC 5280 profiles it;
subject CN = the party's id, OU = its role); those of a gateway or a node also hold `signing.pem` (Ed25519, for tickets
and receipts) and `signing.pub` (its public key in hex). `certificate.pem` is written last, so a folder that has one is
whole. Refuses to do: enrolment (`transfer.enrolment`), revocation (`gateway.register`), TLS itself (`transfer.tls`).
"""

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from transfer import keyfiles
from transfer.errors import SettingsError

Role = Literal["workstation", "node", "gateway", "operator", "administrator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
SIGNING_ROLES: Final = frozenset({"gateway", "node"})
AUTHORITY_LIFE: Final = datetime.timedelta(days=20 * 365)
CERTIFICATE_LIFE: Final = datetime.timedelta(days=825)
RENEW_BEFORE: Final = datetime.timedelta(days=60)
CLOCK_SKEW: Final = datetime.timedelta(hours=1)
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
PUBLIC: Final = 0o644
IDENTITY_FILES: Final = {  # in the order of writing
    "ca.pem": PUBLIC,
    "signing.pem": keyfiles.PRIVATE,
    "signing.pub": PUBLIC,
    "key.pem": keyfiles.PRIVATE,
    "certificate.pem": PUBLIC,
}


class Authority(msgspec.Struct, frozen=True):
    """The certificate authority of one cluster: whoever holds it decides who takes part."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes


def create_authority(folder: Path) -> Authority:
    """Make the authority in `folder` (`ca.pem`, `ca.key.pem`), or return the one that is there already.

    Raises:
        SettingsError: the folder cannot be written, or what it holds cannot be read.
    """
    if not (folder / "ca.pem").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key)
        keyfiles.write_file(folder / "ca.key.pem", keyfiles.private_pem(key), keyfiles.PRIVATE)
        keyfiles.write_file(folder / "ca.pem", certificate.public_bytes(Encoding.PEM), PUBLIC)
    return load_authority(folder)


def load_authority(folder: Path) -> Authority:
    """Read the authority from `folder`.

    Raises:
        SettingsError: missing, unreadable or not an authority's files.
    """
    certificate = load_certificate(folder / "ca.pem")
    key = keyfiles.load_key(folder / "ca.key.pem")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise SettingsError(f"{folder}: ca.key.pem is not the key of ca.pem")
    return Authority(certificate, key)


def issue(
    authority: Authority,
    folder: Path,
    *,
    name: str,
    role: Role,
    hosts: Iterable[str] = (),
    life: datetime.timedelta = CERTIFICATE_LIFE,
) -> None:
    """Write the identity folder of the party `name`; `hosts` are the DNS names and addresses that it is reached by.

    A signing key that is there already is kept: a renewed certificate does not change a node's signature.

    Raises:
        SettingsError: the folder cannot be written, or `name` or a host cannot stand in a certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certify(authority, key.public_key(), name=name, role=role, hosts=hosts, life=life)
    if role in SIGNING_ROLES:
        ensure_signing_key(folder)
    keyfiles.write_file(folder / "ca.pem", authority.certificate.public_bytes(Encoding.PEM), PUBLIC)
    keyfiles.write_file(folder / "key.pem", keyfiles.private_pem(key), keyfiles.PRIVATE)
    keyfiles.write_file(folder / "certificate.pem", certificate.public_bytes(Encoding.PEM), PUBLIC)


def install(source: Path, target: Path) -> None:
    """Copy an identity folder; files that are the same already are left alone, so a whole copy costs only reads.

    Raises:
        SettingsError: a file cannot be read or written.
    """
    for name, mode in IDENTITY_FILES.items():
        if (source / name).exists():
            data = keyfiles.read_file(source / name)
            if not (target / name).exists() or keyfiles.read_file(target / name) != data:
                keyfiles.write_file(target / name, data, mode)


def take_newer(folder: Path, pem: bytes) -> None:
    """Put a certificate in an identity folder, in place of an older one of the same key and authority.

    Whatever else `pem` is (of another key, not valid now, damaged, empty) changes nothing.

    Raises:
        SettingsError: what the folder holds cannot be read, or not be written.
    """
    if not ((folder / "certificate.pem").exists() and (folder / "ca.pem").exists()):
        return
    own, authority = load_certificate(folder / "certificate.pem"), load_certificate(folder / "ca.pem")
    try:
        other = x509.load_pem_x509_certificate(pem)
        other.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return
    is_valid = other.not_valid_before_utc <= datetime.datetime.now(datetime.UTC) < other.not_valid_after_utc
    is_newer = other.not_valid_before_utc > own.not_valid_before_utc
    if is_valid and is_newer and other.public_key() == own.public_key():
        keyfiles.write_file(folder / "certificate.pem", pem, PUBLIC)


def is_current(folder: Path, *, hosts: Iterable[str] = (), now: datetime.datetime | None = None) -> bool:
    """Tell whether the folder holds a certificate of its key that names all `hosts` and need not be renewed yet.

    Raises:
        SettingsError: certificate or key is there and cannot be read.
    """
    if not ((folder / "certificate.pem").exists() and (folder / "key.pem").exists()):
        return False
    certificate = load_certificate(folder / "certificate.pem")
    if keyfiles.load_certificate_key(folder / "key.pem").public_key() != certificate.public_key():
        return False  # killed in between: the key is written first
    moment = now or datetime.datetime.now(datetime.UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins <= moment < ends - RENEW_BEFORE and set(hosts) <= hosts_of(certificate)


def load_certificate(path: Path) -> x509.Certificate:
    """Read one PEM certificate.

    Raises:
        SettingsError: unreadable or not a certificate.
    """
    try:
        return x509.load_pem_x509_certificate(keyfiles.read_file(path))
    except ValueError as error:
        raise SettingsError(f"{path}: not a PEM certificate") from error


def load_signing_key(folder: Path) -> Ed25519PrivateKey:
    """Read the Ed25519 key by which the party of this identity folder signs.

    Raises:
        SettingsError: missing, unreadable or of another kind.
    """
    return keyfiles.load_private_key(folder / "signing.pem")


def public_key_from_hex(text: str) -> Ed25519PublicKey:
    """Return the Ed25519 public key written as 64 hex digits.

    Raises:
        SettingsError: anything else.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text.strip()))
    except ValueError as error:
        raise SettingsError("a signing key must be the 64 hex digits of an Ed25519 public key") from error


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fascicle private authority")])
    builder = _builder(name, name, key.public_key(), AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def certify(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    *,
    name: str,
    role: Role,
    hosts: Iterable[str],
    life: datetime.timedelta = CERTIFICATE_LIFE,
) -> x509.Certificate:
    """Return a certificate for `key`.

    Raises:
        SettingsError: `name` or a host cannot stand in a certificate.
    """
    issuer = authority.certificate
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = _builder(_subject(name, role), issuer.subject, key, life)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(_authority_key_identifier(issuer), critical=False)
    if names := [_general_name(host) for host in dict.fromkeys(hosts)]:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str, role: Role) -> x509.Name:
    try:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
    except ValueError as error:
        raise SettingsError(f"`{name}` cannot be the name of a party: {error}") from error


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # not an address, so a name
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise SettingsError(f"`{host}` is neither an address nor a host name") from error


def hosts_of(certificate: x509.Certificate) -> set[str]:
    """Return the names and addresses that a certificate is good for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def ensure_signing_key(folder: Path) -> None:
    """Make the folder's signing key, unless it is there, and write its public half.

    Raises:
        SettingsError: the folder cannot be written.
    """
    if (folder / "signing.pem").exists():
        key = load_signing_key(folder)
    else:
        key = Ed25519PrivateKey.generate()
        keyfiles.write_file(folder / "signing.pem", keyfiles.private_pem(key), keyfiles.PRIVATE)
    keyfiles.write_file(folder / "signing.pub", key.public_key().public_bytes_raw().hex().encode() + b"\n", PUBLIC)
