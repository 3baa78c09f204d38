"""Parts broken on purpose: a campaign that does not notice these proves nothing.

Refuses to do: being complete; it shows that the campaigns see what they look for.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import agent.database
import agent.queue
from gateway import audit, register
from nodes import reading, trust
from transfer import disk, keyfiles


def without_flush_of_data() -> None:
    """Answer before the bytes are on the disk."""
    disk.flush_data = lambda _: None
    disk.flush_file_system = lambda _: None


def without_flush_of_names() -> None:
    """Answer before the names are on the disk."""
    disk.flush_folder = lambda _: None
    disk.flush_file_system = lambda _: None


def flush_again() -> None:
    """Try a failed flush again, and believe the second answer."""

    def twice(call: Callable[..., None]) -> Callable[..., None]:
        def flush(*arguments: object) -> None:
            try:
                call(*arguments)
            except disk.FascicleError:
                call(*arguments)

        return flush

    disk.flush_data, disk.flush_file_system = twice(disk.flush_data), twice(disk.flush_file_system)


def without_check_on_reading() -> None:
    """Give out bytes as they are."""
    reading.StoredReader._judge = lambda *_: None


def queue_without_flush() -> None:
    """Answer before the queue's log is on the disk."""
    pragmas = agent.database._pragmas()
    assert "synchronous = FULL" in pragmas, "the mistake does not fit the code any more"
    changed = [each.replace("synchronous = FULL", "synchronous = NORMAL") for each in pragmas]
    agent.database._pragmas = lambda: changed


def queue_in_pieces() -> None:
    """Change the queue row by row."""

    @contextlib.contextmanager
    def none(_: object) -> Iterator[None]:
        yield

    agent.queue.transaction = none


def audit_without_flush() -> None:
    """Answer before the entry is on the disk."""
    audit.disk = SimpleNamespace(**vars(disk) | {"flush_data": lambda _: None})


def audit_without_mending() -> None:
    """Leave half a line where it is, and write over it."""
    audit.disk = SimpleNamespace(**vars(disk) | {"truncate": lambda *_: None})


def files_in_place() -> None:
    """Write over the old file."""

    def write(path: Path, data: bytes, mode: int = 0) -> None:
        descriptor = disk.open_or_create(str(path))
        try:
            disk.truncate(descriptor, 0)
            disk.write_at(descriptor, [data], 0)
            disk.flush_data(descriptor)
        finally:
            disk.close(descriptor)
        disk.flush_folder(str(path.parent))

    keyfiles.write_file_durably = register.write_file_durably = trust.write_file_durably = write


BROKEN: Final = {
    each.__name__: each
    for each in (
        without_flush_of_data,
        without_flush_of_names,
        flush_again,
        without_check_on_reading,
        queue_without_flush,
        queue_in_pieces,
        audit_without_flush,
        audit_without_mending,
        files_in_place,
    )
}
