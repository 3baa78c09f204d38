"""The gateway in memory (`FakeCloud`) for runs in other processes: one JSON line a question over a Unix socket."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.xen.fake_cloud import FakeCloud
from xen.cloud import Node

CHANGES = frozenset({"invite", "drain", "revoke", "tell_domain"})


@contextmanager
def serve(cloud: FakeCloud, path: Path, before: Callable[[str], None], after: Callable[[str], None]) -> Iterator[None]:
    """Answer questions at `path`; `before` and `after` are told of each that changes something."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                call, *values = json.loads(line)
                if call in CHANGES:
                    before(call)
                answer = answers(cloud)[call](*values)
                if call in CHANGES:
                    after(call)
                try:
                    self.wfile.write(msgspec.json.encode(answer) + b"\n")
                except OSError:
                    return

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Be silent: runs are killed here."""

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()


def answers(cloud: FakeCloud) -> dict[str, Callable[..., Any]]:
    """Return the answers by question."""
    return {
        "nodes": cloud.view,
        "invite": lambda name, hosts: cloud.invite_now(name),
        "drain": cloud.drain_now,
        "needed_objects": cloud.needed_now,
        "revoke": cloud.revoke_now,
        "tell_domain": lambda name, domain: cloud.domains.update({name: domain}),
    }


class LinkedCloud:
    """`xen.cloud.Cloud` over the socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, *words: Any) -> bytes:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(self._path)
            link.sendall(json.dumps(words).encode() + b"\n")
            return link.makefile("rb").readline()

    async def nodes(self) -> Mapping[str, Node]:
        return msgspec.json.decode(self.ask("nodes"), type=dict[str, Node])

    async def invite(self, name: str, hosts: Sequence[str]) -> str:
        return msgspec.json.decode(self.ask("invite", name, list(hosts)), type=str)

    async def drain(self, name: str) -> None:
        self.ask("drain", name)

    async def needed_objects(self, name: str) -> int:
        return msgspec.json.decode(self.ask("needed_objects", name), type=int)

    async def revoke(self, name: str) -> None:
        self.ask("revoke", name)

    async def tell_domain(self, name: str, domain: str) -> None:
        self.ask("tell_domain", name, domain)
