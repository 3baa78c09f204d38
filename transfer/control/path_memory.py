"""What worked on each path last time: number of flows, goodput, round trip. One small JSON file.

    {"version": 1, "paths": {"https://gateway:8443 cubic": {"flows": 48, "goodput_bytes_s": ..., ...}}}

A key is only ever a key: no file is named by it. The file is written whole in the durable order; two writers at once
lose one entry, never the file. A damaged or foreign file is begun anew, with a log line: it holds hints, no facts.
Refuses to do: deciding by what it remembers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from transfer.durable import make_folder_durably, write_file_durably
from transfer.log import get_logger

log = get_logger()
VERSION: Final = 1
PATHS_MAX: Final = 256
FILE_BYTES_MAX: Final = 8 << 20
STALE_S: Final = 30 * 86_400.0  # links are replaced; after this a path is met as a stranger

Count = Annotated[int, Meta(ge=1, le=1024)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Key = Annotated[str, Meta(min_length=1, max_length=512)]


class PathFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen on one path."""

    flows: Count
    goodput_bytes_s: Amount
    rtt_s: Amount
    seen_at_s: Amount  # Unix seconds


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    paths: dict[Key, PathFacts]


Memory = Mapping[str, PathFacts]


def recall(memory: Memory, key: str, now_s: float) -> PathFacts | None:
    """Return what is known of a path, None when it was never seen or not for a month."""
    found = memory.get(key[:512])
    return found if found is not None and now_s - found.seen_at_s <= STALE_S else None


def remember(memory: Memory, key: str, facts: PathFacts) -> dict[str, PathFacts]:
    """Return the memory with a path's facts; beyond `PATHS_MAX` the paths that were not seen for longest go."""
    newest = sorted([*memory.items(), (key[:512], facts)], key=lambda entry: entry[1].seen_at_s)[-PATHS_MAX:]
    return {**dict(newest), key[:512]: facts}


def load(path: Path) -> dict[str, PathFacts]:
    """Read the file (blocks); empty when there is none, or none that can be used."""
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(FILE_BYTES_MAX), type=_File)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("path_memory_begun_anew", path=str(path), error=type(error).__name__)
        return {}
    if found.version != VERSION:
        log.warning("path_memory_begun_anew", path=str(path), error=f"version {found.version}")
        return {}
    return found.paths


def store(path: Path, key: str, facts: PathFacts) -> None:
    """Add to what the file holds now, and write it in the durable order (blocks).

    Raises:
        StorageError, FullError: the file is as it was; a transfer does not fail for it.
    """
    make_folder_durably(path.parent)
    paths = remember(load(path), key, facts)
    write_file_durably(path, msgspec.json.encode(_File(version=VERSION, paths=paths)), mode=0o600)


def default_path(environment: Mapping[str, str]) -> Path:
    """Return where a user's commands remember; the agent's daemon has its own in its state folder."""
    state = environment.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path(environment.get("HOME") or "/") / ".local" / "state"
    return base / "fascicle" / "paths.json"
