"""Which spool it is (STATE/spool_folder), so that nothing is forgotten in a former one, or one whose disk is away.

The queue knows received images by their names below the spool: in another folder they would count as vanished, and an
image that the queue does not have yet is looked for in the spool that the settings name, and nowhere else. A spool has
a name of its own (SPOOL/id): a folder without it is the mount point of a disk that is not there, and what was received
into that would be hidden once it is. Where no name was noted, as by an earlier version, a spool that has none of the
queue's images is not the one that they are in. An empty STATE/spool_folder says that they are given up. Everything here
blocks. Refuses to do: moving images, sending from two spools.
"""

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agent.spool import NAME
from transfer import disk
from transfer.durable import write_file_durably
from transfer.errors import SettingsError, StorageError

GIVEN_UP: Final = Path()  # what an empty record reads as
IDENTITY: Final = re.compile(rb"[0-9a-f]{32}\Z")


class _Record(NamedTuple):
    """What STATE/spool_folder says: the folder, and behind a NUL the spool's name, b"" by an earlier version."""

    folder: Path
    identity: bytes


def require_same_or_empty(record: Path, spool: Path, queued: Sequence[str]) -> None:
    """Make sure that no image waits in the spool that was used before, if it is another than `spool`.

    `queued`: names of some received images that the queue has and that are still to go.

    Raises:
        SettingsError: images wait there, or may do so; what to do is said.
        StorageError: `spool` cannot be looked into.
    """
    noted = _noted(record)
    if noted is None or (not noted.identity and noted.folder.resolve() == spool.resolve()):
        _require_any(record, spool, queued)
        return
    former = noted.folder
    if former == GIVEN_UP or (noted.identity and noted.identity == identity_of(spool)):
        return
    if former.resolve() == spool.resolve():
        raise SettingsError(
            f"{spool} is not the spool that it was ({spool / 'id'} is missing or another): see that its disk is "
            f"mounted; to go on without the images that were in it make {record} an empty file"
        )
    if found := _waiting(former / "ready"):
        raise SettingsError(
            f"spool.folder was {former}, where {found}: set it back until all are sent, or move the files in "
            f"{former / 'ready'} to {spool / 'ready'}; to go on without them make {record} an empty file"
        )


def _require_any(record: Path, spool: Path, queued: Sequence[str]) -> None:
    """Make sure that at least one of the queued images is in `spool`, if there are any."""
    ready = spool / "ready"
    if queued and not any(disk.exists(str(ready / name)) for name in queued):
        raise SettingsError(
            f"received images are to be sent, and {ready} has none of them: set spool.folder to where it was, or move "
            f"the files of its ready/ to {ready}; to go on without them make {record} an empty file"
        )


def remember(record: Path, spool: Path) -> bytes:
    """Note that images wait in `spool` from now on; return its name, which it is given where it has none.

    Raises:
        StorageError, FullError: it cannot be noted.
    """
    identity = identity_of(spool)
    if not identity:
        identity = secrets.token_hex(16).encode()
        write_file_durably(spool / "id", identity)
    if _noted(record) != (spool, identity):
        write_file_durably(record, os.fsencode(spool) + b"\0" + identity)
    return identity


def identity_of(spool: Path) -> bytes:
    """Return the spool's name, b"" where the folder has none, or cannot be read."""
    try:
        with (spool / "id").open("rb") as file:
            found = file.read(64)
    except OSError:
        return b""
    return found if IDENTITY.match(found) else b""


def _noted(record: Path) -> _Record | None:
    try:
        folder, _, identity = record.read_bytes().partition(b"\0")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{record}: cannot be read: {error.strerror}") from error
    return _Record(Path(os.fsdecode(folder)), identity)


def _waiting(ready: Path) -> str:
    """Say what waits in the folder; "" for nothing."""
    try:
        count = sum(NAME.match(entry.name) is not None for entry in disk.entries(str(ready)))
    except StorageError as error:  # such as a disk that is away
        return f"images may wait ({error.message})"
    return f"images wait ({count})" if count else ""
