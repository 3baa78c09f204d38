"""Which names of objects are taken from senders and nodes: those that `get` can later make files of, safely.

A name is a relative path of components between slashes, percent-encoded (RFC 3986); it is judged decoded. "" (no name)
is taken. Refuses to do: making paths.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from transfer.errors import ProtocolError

COMPONENT_BYTES_MAX: Final = 255
_ENCODED: Final = re.compile(r"(?:[A-Za-z0-9_.~/-]|%[0-9A-Fa-f]{2})*\Z")


def check_names(names: Iterable[str]) -> None:
    """Check all names.

    Raises:
        ProtocolError: one is absolute, climbs, holds a NUL or an encoded slash, or has a part that no system takes.
    """
    for name in names:
        if name and not (_ENCODED.match(name) and all(map(_is_component, name.split("/")))):
            raise ProtocolError("a name must be a relative path, percent-encoded, without empty, `.` or `..` parts")


def _is_component(text: str) -> bool:
    part = unquote_to_bytes(text)
    return part not in (b"", b".", b"..") and len(part) <= COMPONENT_BYTES_MAX and not set(part) & {0, ord("/")}
