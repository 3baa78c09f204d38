"""The one number in a pool file that commands change: `count` in `[nodes]`. Every other byte stays as it is.

    look -> the text as it is, and as it shall be -> (the caller makes sure that it fits, and will count) -> write

It is written in the durable order, in place of the file, so that readers, also after a kill, find the old one or the
new one whole. What somebody else has changed since the look is not overwritten. Refuses to do: choosing the number, and
any other key.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from transfer import settings
from transfer.durable import write_file_durably
from transfer.errors import ConflictError, SettingsError

COUNT: Final = re.compile(r"(?m)^([ \t]*\[nodes\].*\n(?:(?![ \t]*\[).*\n)*?[ \t]*count[ \t]*=[ \t]*)([0-9_]+)")


class Change(msgspec.Struct, frozen=True):
    """What is to be written, in place of what was read."""

    path: Path
    before: str
    after: str


def look(path: Path, count: int) -> Change:
    """Return the change that makes it `count` nodes.

    Raises:
        SettingsError: the file cannot be read, or has no plain `count` in `[nodes]`.
    """
    before = _read(path)
    after, found = COUNT.subn(lambda match: f"{match[1]}{count}", before, count=1)
    if not found or count_in(after, path) != count:
        raise SettingsError(f"{path}: has no line `count = N` in `[nodes]` that could be changed")
    return Change(path, before, after)


def count_in(text: str, path: Path) -> int | None:
    """Return the number that a pool file's text says, None if it says none.

    Raises:
        SettingsError: it is not TOML.
    """
    try:
        nodes = tomllib.loads(text).get("nodes", {})
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    count = nodes.get("count") if isinstance(nodes, dict) else None
    return count if isinstance(count, int) else None


def check_in_force(change: Change, count: int, environment: Mapping[str, str] = os.environ) -> None:
    """Check that the file, when it is written, is what counts.

    Raises:
        SettingsError: this process's environment says another number, by which the next `apply` would go.
    """
    read = tomllib.loads(change.after)
    settings.override(read, environment)
    said = read["nodes"]["count"]
    if said != count:
        raise SettingsError(
            f"the environment says {said} nodes (FASCICLE_NODES__COUNT), which counts more than {change.path}: "
            f"unset it, here and where the reconciler runs, or set it to {count}. Nothing was done"
        )


def write(change: Change) -> None:
    """Write the file, if it changes; where a link leads, not in place of the link.

    Raises:
        ConflictError: somebody has changed it since the look.
        SettingsError, StorageError, FullError: it cannot be written.
    """
    if _read(change.path) != change.before:
        raise ConflictError(f"{change.path}: somebody has changed it in this moment, so nothing was written")
    if change.after == change.before:
        return
    try:
        mode = change.path.stat().st_mode & 0o777
    except OSError as error:
        raise SettingsError(f"{change.path}: cannot be changed: {error}") from error
    write_file_durably(change.path.resolve(), change.after.encode(), mode)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
