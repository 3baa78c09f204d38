"""What was known of each host last, in a file: libvirt has no pool that would remember a host that does not answer.

    {"hosts": {URI: {"closed": bool, "machines": [...], "pending": {uuid: stage}}}}

`pending`: marks of machines that could not be reached, written there when their host is back. A host that was never
seen is not guessed at. Losing the file loses what is known of dead hosts, no node and no object. Refuses to do: talking
to hosts.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from transfer.durable import write_file_durably
from transfer.errors import SettingsError
from xen.observed import Machine, Stage, Value

R = TypeVar("R")


class HostMemory(Value, frozen=True, kw_only=True):
    """What is remembered of one host. `closed`: it takes no new nodes."""

    closed: bool = False
    seen: bool = False
    machines: tuple[Machine, ...] = ()
    pending: dict[str, Stage] = msgspec.field(default_factory=dict)


class Remembered(Value, frozen=True, kw_only=True):
    """The whole file."""

    hosts: dict[str, HostMemory] = msgspec.field(default_factory=dict)


class Memory:
    """The file. Changed by one process at a time, in one step each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, uri: str) -> HostMemory:
        """Return what is remembered of a host.

        Raises:
            SettingsError: the file cannot be read.
        """
        return self._read().hosts.get(uri, HostMemory())

    def change(self, uri: str, change: Callable[[HostMemory], HostMemory]) -> HostMemory:
        """Change what is remembered of a host, and return it.

        Raises:
            SettingsError: the file cannot be read or written.
        """
        with self._locked():
            read = self._read()
            before = read.hosts.get(uri, HostMemory())
            after = change(before)
            if after != before:
                whole = Remembered(hosts=read.hosts | {uri: after})
                write_file_durably(self._path, msgspec.json.format(msgspec.json.encode(whole)), 0o600)
            return after

    def _read(self) -> Remembered:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Remembered)
        except FileNotFoundError:
            return Remembered()
        except (OSError, msgspec.DecodeError) as error:
            raise SettingsError(f"{self._path}: what is known of the hosts cannot be read: {error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(
                f"{self._path}: what is known of the hosts cannot be written: {error.strerror}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
