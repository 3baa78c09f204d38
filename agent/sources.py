"""Sources: the files under the paths that somebody named on a command line.

Folders are walked without entering one twice, so that a loop of symbolic links ends. A name keeps the folder that was
named: `send ct_head` gives `ct_head/1.dcm`. Refuses to do: opening files.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from transfer import names
from transfer.errors import UnusableFileError
from transfer.inspection import SourceFile


def list_sources(path: Path) -> Iterator[SourceFile | UnusableFileError]:
    """Yield what is at `path`, in a stable order; a folder that cannot be listed is an error in its place."""
    base = PurePath(path.name or path.resolve().name)
    if os.path.isdir(path):
        yield from _walk(path, base, seen=set())
    else:
        yield _source(path, base, named=True)


def _walk(folder: Path, name: PurePath, *, seen: set[tuple[int, int]]) -> Iterator[SourceFile | UnusableFileError]:
    if len(name.parts) > names.DEPTH_MAX:
        yield UnusableFileError(f"{folder}: too deep; send it by a name of its own")
        return
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield UnusableFileError(f"{folder}: the folder cannot be listed: {error.strerror}")
        return
    for entry in ordered:
        path = folder / entry.name
        if os.path.isdir(path):  # not the entry's own or the path's, which raise; its opening says what is wrong
            yield from _walk(path, name / entry.name, seen=seen)
        else:
            yield _source(path, name / entry.name, named=False)


def _source(path: Path, name: PurePath, *, named: bool) -> SourceFile:
    try:
        size_bytes = path.stat().st_size
    except OSError:
        size_bytes = 0  # whatever is wrong with it is said when it is opened
    return SourceFile(path, names.usable(name), size_bytes, named)
