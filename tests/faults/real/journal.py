"""The journal of acknowledgements: what a campaign was promised, on a disk that the campaign does not break.

One JSON line an acknowledgement, flushed before the campaign goes on, so that what was promised is known whatever
becomes of the campaign itself. A last line that is cut counts as not written. Refuses to do: judging (each role checks
its own, `tests.faults.real.roles`).
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self


class Acknowledged(NamedTuple):
    """One promise: in which store (`folder`), under which name, and the seed that makes its content again."""

    folder: str
    key: str
    seed: int


class Journal:
    """An open journal; use it as a context manager."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.count = 0

    def note(self, promises: Iterable[Acknowledged]) -> None:
        """Add the promises; on return they are durable."""
        lines = [json.dumps(promise) + "\n" for promise in promises]
        if lines:
            os.write(self._descriptor, "".join(lines).encode())
            os.fdatasync(self._descriptor)
            self.count += len(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def read_journal(path: Path) -> dict[str, dict[str, int]]:
    """Return for each folder what was acknowledged in it: names and seeds."""
    found: dict[str, dict[str, int]] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            promise = Acknowledged(*json.loads(line))
            found.setdefault(promise.folder, {})[promise.key] = promise.seed
    return found
