"""Ports for a cluster on one machine: which are free, and which to keep from the last time.

Ports are taken below the range from which the kernel draws the ends of outgoing connections: a port inside that range
may be lent to a stranger while a killed node is being started again. Clusters that are prepared at the same time get
different ones: what is given out is held, by its name and not by listening there, until `Ports` is gone (on Linux; the
kernel frees the names of a process that ends, and keeps them by network namespace, as it does ports). Refuses to do:
keeping out those who do not ask here; they may take a port before it is used, which is then the user's clear error.
"""

import contextlib
import errno
import random
import re
import socket
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from transfer.errors import SettingsError

LOW: Final = 10_240
EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES_MAX: Final = 10_000
NAME_BYTES_MAX: Final = 108  # sun_path of unix(7)
TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EACCES})


class Ports:
    """Hands out ports of one host that are free now, each once, and to nobody else while this object lives."""

    def __init__(self, host: str, seed: int | None = None) -> None:
        self._host = host
        self._given: set[int] = set()
        self._held = contextlib.ExitStack()
        weakref.finalize(self, self._held.close)
        self._random = random.Random(seed)  # noqa: S311  (spreads, protects nothing)

    def keep_or_choose(self, kept: int | None) -> int:
        """Return the port `kept` from the last time if it is free, else another.

        Raises:
            SettingsError: none is free, or the host is not one of this machine.
        """
        for port in self._candidates(kept):
            if self._take(port):
                return port
        raise SettingsError(f"no port is free on {self._host}")

    def claim(self, port: int) -> int:
        """Return this very port.

        Raises:
            SettingsError: it is in use.
        """
        if not self._take(port):
            raise SettingsError(f"port {port} of {self._host} is in use; choose another, or stop what has it")
        return port

    def _take(self, port: int) -> bool:
        """Hold a port that is free; False: somebody has it, or it was given out."""
        if port in self._given:
            return False
        with contextlib.ExitStack() as stack:
            if not _hold(self._host, port, stack) or not is_free(self._host, port):
                return False
            self._held.push(stack.pop_all())
        self._given.add(port)
        return True

    def _candidates(self, kept: int | None) -> Iterator[int]:
        if kept:
            yield kept
        high = _ephemeral_low()
        for _ in range(TRIES_MAX):
            yield self._random.randrange(LOW, high)


def is_free(host: str, port: int) -> bool:
    """Tell whether both TCP and UDP can be listened on there.

    Raises:
        SettingsError: `host` is not an address of this machine.
    """
    return all(_can_bind(host, port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))


def join(host: str, port: int) -> str:
    """Return `host:port` as settings and URLs write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_of(address: object) -> int | None:
    """Return the port of a `host:port` text; None when it is not one."""
    match = re.fullmatch(r".+:([0-9]{1,5})", address) if isinstance(address, str) else None
    return int(match[1]) if match else None


def _can_bind(host: str, port: int, kind: socket.SocketKind) -> bool:
    try:
        family = socket.getaddrinfo(host, port, type=kind)[0][0]
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as listeners do: past TIME_WAIT
            probe.bind((host, port))
            if kind is socket.SOCK_STREAM:
                probe.listen(1)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise SettingsError(f"cannot listen on {host}: {error.strerror}") from error
    except UnicodeError as error:  # of the IDNA codec
        raise SettingsError(f"cannot listen on {host}: it cannot be a host's name") from error
    return True


def _hold(host: str, port: int, stack: contextlib.ExitStack) -> bool:
    """Take a port's name among the kernel's abstract socket names until `stack` is closed; False: somebody has it."""
    if sys.platform != "linux":
        return True  # there are no such names: only those who listen are noticed
    try:
        holder = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        holder.bind(f"\0fascicle/port/{port}/{host}".encode()[:NAME_BYTES_MAX])
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise SettingsError(f"cannot hold port {port} of {host}: {error.strerror}") from error
    return True


def _ephemeral_low() -> int:
    try:
        low = int(EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768  # Linux's default
    return low if low > LOW + TRIES_MAX // 10 else 65_536
