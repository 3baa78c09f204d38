"""Names: where a sender had an object, as ASCII text that survives JSON and any file system's bytes.

A name is a relative path; bytes outside RFC 3986's unreserved characters and `/` are percent-encoded. It comes from the
sender's file system, never from a data set, and it is checked again wherever it becomes a path. Refuses to do: I/O.
"""

import os
from pathlib import PurePath
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from transfer.errors import ProtocolError

COMPONENT_BYTES_MAX: Final = 255
PATH_BYTES_MAX: Final = 4095
DEPTH_MAX: Final = 256


def from_path(path: PurePath) -> str:
    """Return the name of a relative path; every byte of every file name survives."""
    return quote_from_bytes(os.fsencode(path), safe="/")


def usable(path: PurePath) -> str:
    """Return the name of a relative path, or none where it is too deep or long: that costs the name, not the image."""
    name = from_path(path)
    try:
        check(name)
    except ProtocolError:
        return ""
    return name


def to_path(name: str) -> PurePath:
    """Return the relative path of a name, safe to put under a folder.

    Raises:
        ProtocolError: absolute, empty, `.` or `..` inside, a zero byte, too long or too deep.
    """
    raw = unquote_to_bytes(name)
    components = raw.split(b"/")
    if len(raw) > PATH_BYTES_MAX or len(components) > DEPTH_MAX or b"\0" in raw:
        raise ProtocolError("an object's name is too long, too deep or holds a zero byte")
    if any(part in (b"", b".", b"..") or len(part) > COMPONENT_BYTES_MAX for part in components):
        raise ProtocolError("an object's name is not a plain relative path")
    return PurePath(os.fsdecode(raw))


def check(name: str) -> None:
    """Judge a name that a peer sent; "" (no name) is fine.

    Raises:
        ProtocolError: see `to_path`.
    """
    if name:
        to_path(name)
