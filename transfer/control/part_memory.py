"""Which node has a part of a large object that was on its way, for the next sender of it. One small JSON file.

    {"version": 1, "parts": {"<object id>": {"node_id": "node-3", "seen_at_s": ...}}}

A node keeps what came of such an object for a week; a sender that was killed or restarted goes on there. The file
holds hints, no facts: a damaged or foreign one is begun anew, and a part that is no longer there costs nothing but its
bytes. Refuses to do: knowing how much the node has (it says so itself).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from transfer.control.path_memory import Amount, Key
from transfer.durable import make_folder_durably, write_file_durably
from transfer.log import get_logger

log = get_logger()
VERSION: Final = 1
PARTS_MAX: Final = 64
FILE_BYTES_MAX: Final = 1 << 20
STALE_S: Final = 7 * 86_400.0  # as long as a node keeps it


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Where the part of one object is. `seen_at_s`: Unix seconds."""

    node_id: Key
    seen_at_s: Amount


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    parts: Annotated[dict[Key, Part], Meta(max_length=PARTS_MAX)]


def homes(parts: Mapping[str, Part], now_s: float) -> dict[str, str]:
    """Return the node of each object whose part is not too old."""
    return {object_id: part.node_id for object_id, part in parts.items() if now_s - part.seen_at_s <= STALE_S}


def load(path: Path) -> dict[str, Part]:
    """Read the file (blocks); empty when there is none, or none that can be used."""
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(FILE_BYTES_MAX), type=_File)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("part_memory_begun_anew", path=str(path), error=type(error).__name__)
        return {}
    return found.parts if found.version == VERSION else {}


def store(path: Path, object_id: str, part: Part) -> None:
    """Add to what the file holds now (blocks); beyond `PARTS_MAX` the oldest go.

    Raises:
        StorageError, FullError: the file is as it was; a transfer does not fail for it.
    """
    make_folder_durably(path.parent)
    newest = sorted((load(path) | {object_id: part}).items(), key=lambda entry: entry[1].seen_at_s)[-PARTS_MAX:]
    write_file_durably(path, msgspec.json.encode(_File(version=VERSION, parts=dict(newest))), mode=0o600)
