"""Speaks the data plane by hand, from the byte tables of docs/protocol.md alone: what a broken or hostile peer sends.

Uses nothing of the protocol's own code, so that a mistake there is not repeated here.
"""

import os
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

HELLO, WELCOME, PUT, DATA, STORED, REFUSED, GET, PING, PONG = 1, 2, 3, 4, 5, 6, 8, 9, 10
VERSION = 1
DEADLINE_S = 10.0


def frame(kind: int, *fields: Any) -> bytes:
    """Return one control frame: length, type byte, fields as a MessagePack array."""
    body = bytes([kind]) + msgspec.msgpack.encode(list(fields))
    return struct.pack(">I", len(body)) + body


class Peer:
    """One connection, with a deadline on everything."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        plain = socket.create_connection((host, port), timeout=DEADLINE_S)
        self.socket = context.wrap_socket(plain, server_hostname=host) if context else plain

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say_all(self, data: bytes) -> None:
        """Send `data` and the end of the stream, whether or not the other side still listens."""
        with suppress(ConnectionError):  # it has hung up, which the caller looks at
            self.socket.sendall(data)
        with suppress(OSError):  # not connected any more
            self.socket.shutdown(socket.SHUT_WR)

    def read_frame(self) -> tuple[int, list[Any]]:
        """Return type and fields of the next control frame.

        Raises:
            ConnectionError: the other side closed.
        """
        body = self._read(struct.unpack(">I", self._read(4))[0])
        return body[0], msgspec.msgpack.decode(body[1:])

    def read_to_end(self) -> bytes:
        """Return everything until the other side closes (or resets, when it did not read all)."""
        found = b""
        try:
            while piece := self.socket.recv(65536):
                found += piece
        except ConnectionError:
            pass
        return found

    def _read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = self.socket.recv(count - len(found))
            if not piece:
                raise ConnectionResetError("closed by the other side")
            found += piece
        return found


def listening(pid: int) -> list[tuple[str, int]]:
    """Return the TCP addresses on which process `pid` listens (proc(5))."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in sockets:
            address, port = words[1].split(":")
            found.append((socket.inet_ntoa(struct.pack("<I", int(address, 16))), int(port, 16)))
    return sorted(found)
