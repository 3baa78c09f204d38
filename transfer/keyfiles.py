"""Key files: PEM without a password, of mode 0600 from their first byte on, written in the durable order.

Refuses to do: certificates (`transfer.pki`), passwords (whoever reads the disk has the keys).
"""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from transfer.durable import make_folder_durably, write_file_durably
from transfer.errors import SettingsError, StorageError

PRIVATE: Final = 0o600


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 key.

    Raises:
        SettingsError: missing, unreadable or of another kind.
    """
    key = load_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path}: not an Ed25519 key")
    return key


def load_certificate_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key of a certificate.

    Raises:
        SettingsError: missing, unreadable or of another kind.
    """
    key = load_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{path}: not a key of P-256")
    return key


def write_private_key(path: Path, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """Write a key that only its owner can read.

    Raises:
        SettingsError: it cannot be written.
    """
    write_file(path, private_pem(key), PRIVATE)


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Return the key's PEM text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(path: Path) -> PrivateKeyTypes:
    """Read a key of any kind.

    Raises:
        SettingsError: missing, unreadable or not a key.
    """
    try:
        return load_pem_private_key(read_file(path), password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{path}: not a PEM private key without a password") from error


def read_file(path: Path) -> bytes:
    """Read a file.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file durably; a folder that is made for it is durable, too, and only its owner may enter it.

    Raises:
        SettingsError: it cannot be written.
        FullError: no room.
    """
    try:
        if not path.parent.exists():
            make_folder_durably(path.parent, 0o700)
        write_file_durably(path, data, mode)
    except (OSError, StorageError) as error:
        raise SettingsError(f"{path}: cannot be written: {error}") from error
