"""Connections to hosts: opened when first needed, opened anew when they broke, each with a time limit of its own.

A host's id is its name in the URI: it is known also when the host does not answer, and is the failure domain that the
gateway hears of. Refuses to do: deciding what an unreachable host means.
"""

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import libvirt

from transfer.errors import FascicleError, SettingsError, UnreachableError
from xen.libvirt.errors import named, wrap

OPEN_TIMEOUT_S: Final = 30.0
KEEP_ALIVE_S, KEEP_ALIVE_TRIES = 5, 4
Connect = Callable[[str], Any]
_events_lock = threading.Lock()
_events: list[threading.Thread] = []


def host_id_of(uri: str) -> str:
    """Return the host's name in a URI; this machine's own where there is none (test driver: the file's name)."""
    parts = urlsplit(uri)
    if parts.scheme == "test":
        return PurePosixPath(parts.path).stem or "default"
    return parts.hostname or socket.gethostname()


class HostLink:
    """One host. `connection` is libvirt's, good for several threads."""

    def __init__(self, uri: str, connect: Connect) -> None:
        self.uri, self.host_id = uri, host_id_of(uri)
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: Any = None

    @property
    def connection(self) -> Any:
        """Return a connection that is alive as far as is known.

        Raises:
            UnreachableError: the host does not answer. UnauthorisedError: it does not let us in.
        """
        with self._lock:
            if self._connection is not None and self._is_alive():
                return self._connection
            self._drop()
            self._connection = self._open()
            return self._connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        with self._lock:
            self._drop()

    def _open(self) -> Any:
        """Open in a thread: libvirt's own opening has no time limit."""
        made: list[Any] = []

        def opening() -> None:
            try:
                made.append(self._connect(self.uri))
            except libvirt.libvirtError as error:
                made.append(_opening_error(self.uri, error))

        thread = threading.Thread(target=opening, name=f"libvirt {self.host_id}", daemon=True)
        thread.start()
        thread.join(OPEN_TIMEOUT_S)
        if not made:
            raise UnreachableError(f"the host {self.uri} does not answer within {OPEN_TIMEOUT_S:.0f} s")
        if isinstance(made[0], FascicleError):
            raise made[0]
        return made[0]

    def _is_alive(self) -> bool:
        try:
            return bool(self._connection.isAlive())
        except libvirt.libvirtError:
            return False

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(libvirt.libvirtError):  # it was broken, and is gone now
                self._connection.close()
            self._connection = None


def connect(uri: str) -> Any:
    """Open a connection; one to another machine says within some 20 s that it was lost."""
    remote = bool(urlsplit(uri).hostname)
    if remote:
        _run_events()
    connection = libvirt.open(uri)
    if remote:
        connection.setKeepAlive(KEEP_ALIVE_S, KEEP_ALIVE_TRIES)
    return connection


def open_links(uris: Iterable[str], connect_to: Connect) -> dict[str, HostLink]:
    """Return a link for each URI, by host id; none is opened yet.

    Raises:
        SettingsError: two URIs are of one host.
    """
    links: dict[str, HostLink] = {}
    for uri in uris:
        link = HostLink(uri, connect_to)
        if link.host_id in links:
            raise SettingsError(f"`libvirt.uris`: {uri} and {links[link.host_id].uri} are one host, {link.host_id}")
        links[link.host_id] = link
    return links


def _opening_error(uri: str, error: libvirt.libvirtError) -> FascicleError:
    """What fails while opening is unreachable, unless it says that we are not let in."""
    wrapped = wrap(f"opening {uri}", error)
    return wrapped if wrapped.exit_code == 2 else UnreachableError(wrapped.message)


def _run_events() -> None:
    """Let libvirt's event loop run in a thread of its own; keep-alive is its work."""
    with _events_lock:
        if _events:
            return
        with named("starting libvirt's event loop"):
            libvirt.virEventRegisterDefaultImpl()
        _events.append(threading.Thread(target=_loop, name="libvirt events", daemon=True))
        _events[0].start()


def _loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
