"""Who may read a catalogue's files: their owner and group, also where SQLite made them for an earlier version.

New ones are made so (`gateway.database`). Refuses to do: folders, backups, files whose owner is somebody else.
"""

from pathlib import Path
from typing import Final

from transfer import disk
from transfer.errors import StorageError
from transfer.log import get_logger

SUFFIXES: Final = ("", "-wal", "-shm")


def close_to_others(database: Path) -> None:
    """Take the files that are there from everybody else, and say once that they were open."""
    try:
        found = [suffix for suffix in SUFFIXES if disk.close_to_others(f"{database}{suffix}")]
    except StorageError as error:  # such as files of another owner: no reason not to serve
        get_logger().warning("catalogue_open_to_others", reason=error.message)
        return
    if found:
        get_logger().warning("catalogue_was_open_to_others", files=[f"{database.name}{suffix}" for suffix in found])
