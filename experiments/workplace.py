"""The folder in which a campaign works, and what finished runs leave there.

ext4 hands out no inode that was freed within the last one to five minutes, and looks each of them over to find one that
it may (`recently_deleted` in fs/ext4/ialloc.c): after the removal of 12 000 small files the servers of the next run
spent 5 s instead of 1 in the kernel. So what runs leave is put aside, and removed together once it is `LIMIT_BYTES`.
Refuses to do: outliving the campaign.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 4 << 30
PREFIX: Final = "fascicle-experiment-"


class Workplace:
    """`folder`, where runs make their own; what lies aside in it holds up to `limit_bytes`."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self._aside, self._limit_bytes = folder / "aside", limit_bytes
        self._number = self._bytes = 0

    def put_aside(self, folder: Path) -> None:
        """Free the name of `folder`; where too much lies aside by now, remove all of it."""
        self._number += 1
        self._aside.mkdir(exist_ok=True)
        left = folder.rename(self._aside / str(self._number))
        self._bytes += sum(path.stat().st_size for path in left.rglob("*") if path.is_file())
        if self._bytes > self._limit_bytes:
            shutil.rmtree(self._aside)
            self._bytes = 0


@contextmanager
def open_workplace() -> Iterator[Workplace]:
    """Make the folder, and remove it in the end; those that killed processes left go first."""
    remove_stale(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as name:
        Path(name).chmod(0o755)  # vsftpd's unprivileged process must reach its root
        yield Workplace(Path(name))


def remove_stale(folder: Path) -> None:
    """Remove the work folders in `folder` of processes of this user that are gone."""
    for path in folder.glob(f"{PREFIX}*"):
        match = re.match(rf"{PREFIX}([0-9]+)-", path.name)
        if match and not Path(f"/proc/{match[1]}").exists() and path.lstat().st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)  # another campaign may be removing it, too; it is only room
