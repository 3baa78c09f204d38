"""Parts broken on purpose: a campaign that does not notice these proves nothing.

Refuses to do: being complete; it shows that the campaigns see what they look for.
"""

from collections.abc import Callable
from typing import Final

from nodes import reading
from transfer import disk


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


BROKEN: Final = {
    each.__name__: each
    for each in (without_flush_of_data, without_flush_of_names, flush_again, without_check_on_reading)
}
