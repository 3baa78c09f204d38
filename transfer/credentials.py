"""The CREDENTIALS file: all that a workstation needs to reach one cluster, in one JSON file of mode 0600.

Made by `fascicle up` or enrolment and handed to every command as `--to`. Refuses to do: printing its key, TLS.
"""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from transfer.durable import write_file_durably
from transfer.errors import SettingsError, StorageError

FILE_BYTES_MAX = 1 << 20


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway's URL, the cluster's authority, and the client's certificate and private key (PEM texts)."""

    gateway: Annotated[str, Meta(pattern=r"^https://[^/?#\s]+$")]
    ca: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        """Leave the key out: settings and credentials end up in tracebacks."""
        return f"Credentials(gateway={self.gateway!r})"


def load(path: Path) -> Credentials:
    """Read a CREDENTIALS file.

    Raises:
        SettingsError: missing, unreadable or not a CREDENTIALS file.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX)
        return msgspec.json.decode(text, type=Credentials)
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the credentials: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a credentials file: {error}") from error


def save(credentials: Credentials, path: Path) -> None:
    """Write a CREDENTIALS file that only its owner can read.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file_durably(path, msgspec.json.format(msgspec.json.encode(credentials), indent=2) + b"\n", 0o600)
    except (OSError, StorageError) as error:
        raise SettingsError(f"{path}: cannot write the credentials: {error}") from error


def from_identity(gateway: str, folder: Path) -> Credentials:
    """Return the credentials of the party whose identity folder this is.

    Raises:
        SettingsError: a file of it cannot be read.
    """
    try:
        ca, certificate, key = ((folder / name).read_text("ascii") for name in ("ca.pem", "certificate.pem", "key.pem"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{folder}: not an identity folder: {error}") from error
    return Credentials(gateway=gateway, ca=ca, certificate=certificate, key=key)
