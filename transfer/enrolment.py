"""Enrolment: a key made where it is used, a request for a certificate (PKCS #10, RFC 2986), and its answer.

What a request says of its subject counts for nothing: name, role and hosts come from the invitation. A node also shows
that it has the private half of the key that it will sign receipts with. A renewed certificate is of the same key, name,
role and hosts. Refuses to do: deciding who may have one (`gateway.membership`), HTTP.
"""

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from transfer import keyfiles, pki
from transfer.errors import ProtocolError, SettingsError, UnauthorisedError
from transfer.pki import Authority, Role

CONTEXT: Final = b"fascicle enrolment 1\n"


def make_request(folder: Path) -> str:
    """Make `key.pem` in `folder`, or take the one that is there, and return the signed request for it (PEM).

    Raises:
        SettingsError: the folder cannot be written, or holds another kind of key.
    """
    path = folder / "key.pem"
    if path.exists():
        key = keyfiles.load_certificate_key(path)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        keyfiles.write_private_key(path, key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "as the invitation says")])
    request = x509.CertificateSigningRequestBuilder(subject_name=subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def prove(request: str, key: Ed25519PrivateKey) -> bytes:
    """Return a node's signature over its request."""
    return key.sign(CONTEXT + request.encode())


def check_proof(request: str, public_key: str, proof: bytes) -> None:
    """Check that whoever made the request has the private half of `public_key` (hex).

    Raises:
        UnauthorisedError: it has not.
    """
    try:
        pki.public_key_from_hex(public_key).verify(proof, CONTEXT + request.encode())
    except (InvalidSignature, SettingsError) as error:
        raise UnauthorisedError("the request is not signed with the node's own key") from error


def issue(authority: Authority, request: str, *, name: str, role: Role, hosts: Iterable[str]) -> x509.Certificate:
    """Return a certificate for the key of a request.

    Raises:
        ProtocolError: not a request that its own key signed, or a key that is not of P-256.
    """
    try:
        read = x509.load_pem_x509_csr(request.encode())
        sound, key = read.is_signature_valid, read.public_key()
    except (ValueError, TypeError) as error:
        raise ProtocolError("not a certificate signing request") from error
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ProtocolError("the request must be signed by its own key, of P-256")
    return pki.certify(authority, key, name=name, role=role, hosts=hosts)


def renew(authority: Authority, certificate: x509.Certificate, *, name: str, role: Role) -> x509.Certificate:
    """Return a certificate like `certificate` that begins now.

    Raises:
        ProtocolError: a key that is not of P-256.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ProtocolError("only keys of P-256 are renewed")
    return pki.certify(authority, key, name=name, role=role, hosts=sorted(pki.hosts_of(certificate)))


def is_due(certificate: x509.Certificate, now: datetime.datetime | None = None) -> bool:
    """Tell whether a certificate is to be renewed: a third of its life is left, or a wrong clock began it too late."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    moment = now or datetime.datetime.now(datetime.UTC)
    return moment < begins or moment > ends - (ends - begins) / 3


def check_begun(pem: str) -> None:
    """Check that a new certificate (PEM) may take the place of one that is still good.

    Raises:
        SettingsError: it is none, or by this machine's clock is not good yet, so that one of the two is wrong.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise SettingsError("what the gateway answered is not a certificate") from error
    now = datetime.datetime.now(datetime.UTC)
    if now < certificate.not_valid_before_utc:
        raise SettingsError(
            f"the new certificate is good from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, and here it "
            f"is {now:%Y-%m-%d %H:%M}: set the gateway's clock, or this machine's; the old certificate stays"
        )
