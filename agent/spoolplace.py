"""Where the spool is (STATE/spool_folder), so that nothing is forgotten in a former one when `spool.folder` changes.

The queue knows received images by their names below the spool: in another folder they would count as vanished, and an
image that the queue does not have yet is looked for in the spool that the settings name, and nowhere else. Where no
former one was noted, as by an earlier version, one that has none of the queue's images is not the one that they are in.
An empty STATE/spool_folder says that they are given up. Everything here blocks. Refuses to do: moving images, sending
from two spools.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.spool import NAME
from transfer import disk
from transfer.durable import write_file_durably
from transfer.errors import SettingsError, StorageError

GIVEN_UP: Final = Path()  # what an empty record reads as


def require_same_or_empty(record: Path, spool: Path, queued: Sequence[str]) -> None:
    """Make sure that no image waits in the spool that was used before, if it is another than `spool`.

    `queued`: names of some received images that the queue has and that are still to go.

    Raises:
        SettingsError: images wait there, or may do so; what to do is said.
        StorageError: `spool` cannot be looked into.
    """
    former = _former(record)
    if former is None:
        _require_any(record, spool, queued)
        return
    if former == GIVEN_UP or former.resolve() == spool.resolve():
        return
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


def remember(record: Path, spool: Path) -> None:
    """Note that images wait in `spool` from now on.

    Raises:
        StorageError, FullError: it cannot be noted.
    """
    if _former(record) != spool:
        write_file_durably(record, os.fsencode(spool))


def _former(record: Path) -> Path | None:
    try:
        return Path(os.fsdecode(record.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{record}: cannot be read: {error.strerror}") from error


def _waiting(ready: Path) -> str:
    """Say what waits in the folder; "" for nothing."""
    try:
        count = sum(NAME.match(entry.name) is not None for entry in disk.entries(str(ready)))
    except StorageError as error:  # such as a disk that is away
        return f"images may wait ({error.message})"
    return f"images wait ({count})" if count else ""
