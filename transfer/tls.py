"""TLS 1.3 with certificates on both sides, between the cluster's own parts (design section 10).

The only trust anchor is the cluster's authority; host names are always checked by clients. Refuses to do: older
versions, system trust stores, deciding what a role may do.
"""

import hashlib
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from transfer.credentials import Credentials
from transfer.errors import SettingsError, UnauthorisedError


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end: id and role out of its certificate, the certificate's SHA-256 in hex and its beginning.

    `not_before_s` (Unix seconds) is what revocation compares: it ends all certificates of a name up to some moment.
    """

    name: str
    role: str
    fingerprint: str
    not_before_s: int = 0


def server_context(identity: Path, *, require_client: bool) -> ssl.SSLContext:
    """Return the context of a listener; without `require_client` a peer may have no certificate, but no bad one.

    Raises:
        SettingsError: the identity folder is missing, unreadable or does not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    # A resumed session would skip the check of a certificate that has expired since.
    context.num_tickets = 0
    load_identity(context, identity)
    return context


def client_context(identity: Path | Credentials) -> ssl.SSLContext:
    """Return the context of a party that connects: an identity folder, or the contents of a CREDENTIALS file.

    Raises:
        SettingsError: the certificates or the key cannot be read or do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if isinstance(identity, Credentials):
        _load_credentials(context, identity)
    else:
        load_identity(context, identity)
    return context


def peer_from_der(der: bytes | None) -> Peer:
    """Return who the certificate names (`SSLObject.getpeercert(binary_form=True)`, already verified by TLS).

    Raises:
        UnauthorisedError: no certificate, or one without a name and a role.
    """
    if not der:
        raise UnauthorisedError("the peer showed no certificate")
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject, begins = certificate.subject, int(certificate.not_valid_before_utc.timestamp())
    except ValueError as error:
        raise UnauthorisedError("the peer's certificate cannot be read") from error
    name = _attribute(subject, NameOID.COMMON_NAME)
    role = _attribute(subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    return Peer(name, role, hashlib.sha256(der).hexdigest(), begins)


def _attribute(subject: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = [str(attribute.value) for attribute in subject.get_attributes_for_oid(oid)]
    if len(values) != 1 or not values[0]:
        raise UnauthorisedError("the peer's certificate does not name exactly one party and one role")
    return values[0]


def load_identity(context: ssl.SSLContext, folder: Path) -> None:
    """Use an identity folder, from the next handshake on.

    Raises:
        SettingsError: it is missing, unreadable or does not fit together.
    """
    try:
        context.load_verify_locations(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    except ssl.SSLError as error:
        raise SettingsError(f"{folder}: certificate and key cannot be used: {error.reason}") from error
    except OSError as error:
        raise SettingsError(f"{folder}: not an identity folder: {error.strerror}") from error


def _check_own_certificate(credentials: Credentials) -> None:
    """Find out here what a gateway would say only by closing the connection.

    Raises:
        SettingsError: the certificate has expired, or is of another authority.
    """
    try:
        own = x509.load_pem_x509_certificate(credentials.certificate.encode())
        authority = x509.load_pem_x509_certificate(credentials.ca.encode())
        own.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise SettingsError(
            f"the certificate for {credentials.gateway} is not of this cluster's authority; get new credentials"
        ) from error
    if own.not_valid_after_utc < datetime.now(UTC):
        raise SettingsError(
            f"the certificate for {credentials.gateway} expired at {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; "
            "get new credentials"
        )


def _load_credentials(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Load PEM texts; `ssl` takes a key from a file only, so it passes through memory that looks like one (Linux)."""
    descriptor = os.memfd_create("fascicle-identity", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(f"{credentials.certificate}\n{credentials.key}\n".encode())
        context.load_verify_locations(cadata=credentials.ca)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        _check_own_certificate(credentials)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"the certificates of {credentials.gateway} cannot be used: {error}") from error
    finally:
        os.close(descriptor)
