"""A crowd that holds connections and says nothing, or half of something: `python -m tests.load.crowd PORT ...`.

A process of its own, so that its work is nobody else's. It opens `--count` connections of the given kinds in turn, from
several addresses of this machine (the honest ones' among them), says `full`, and opens anew at `--rate` a second what
is closed on it, until its standard input ends; then it prints its counts as JSON.

    tcp     connects, and says nothing
    hello   half of a ClientHello
    silent  the whole handshake, and then nothing
    half    half of the first request (--request, hex), after the handshake where there is TLS
"""

import argparse
import contextlib
import itertools
import json
import select
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from transfer import credentials, descriptors, tls

THREADS: Final = 8
PATIENCE_S: Final = 10.0
LOOK_MS: Final = 100
SOURCES: Final = ("127.0.0.1", *(f"127.0.1.{number}" for number in range(1, 8)))


class Crowd:
    """Connections of one kind or several to one port."""

    def __init__(self, port: int, kinds: list[str], request: bytes, context: ssl.SSLContext | None) -> None:
        self._port, self._request, self._context = port, request, context
        self._turns = itertools.cycle(itertools.product(SOURCES, kinds))
        self._open: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def open_one(self) -> None:
        """Open the next connection; one that is turned out meanwhile counts as closed on it."""
        with self._lock:
            source, kind = next(self._turns)
        try:
            opened = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_S, source_address=(source, 0))
        except OSError:
            self.counts["not_connected"] += 1
            return
        self.counts["opened"] += 1
        try:
            opened = self._behave(opened, kind)
        except OSError:  # also TLS
            opened.close()
            self.counts["closed_on_us"] += 1
            return
        with self._lock:
            self._open[opened.fileno()] = opened
            self._poll.register(opened, select.POLLIN | select.POLLRDHUP)

    def _behave(self, opened: socket.socket, kind: str) -> socket.socket:
        if kind == "hello" and self._context is not None:
            opened.sendall(_client_hello(self._context)[:100])
        if kind in ("silent", "half") and self._context is not None:
            opened = self._context.wrap_socket(opened, server_hostname="127.0.0.1")
        if kind == "half":
            opened.sendall(self._request)
        return opened

    def sweep(self) -> int:
        """Drop what was closed on us (nothing is ever answered); return how many are open."""
        with self._lock:
            for number, _ in self._poll.poll(0):
                self._poll.unregister(number)
                self._open.pop(number).close()
                self.counts["closed_on_us"] += 1
            return len(self._open)


def _client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):  # as it must, with nobody to answer
        context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def main() -> None:
    """Run one crowd."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--kinds", default="tcp")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--request", default="", type=bytes.fromhex)
    parser.add_argument("--credentials", type=Path)
    chosen = parser.parse_args()
    descriptors.raise_limit()
    context = tls.client_context(credentials.load(chosen.credentials)) if chosen.credentials else None
    crowd = Crowd(chosen.port, chosen.kinds.split(","), chosen.request or b"", context)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda _: crowd.open_one(), range(chosen.count)):
            pass
        crowd.counts["left_when_full"] = crowd.sweep()
        print("full", flush=True)
        _hold(crowd, pool, chosen.count, chosen.rate)
    crowd.counts["left"] = crowd.sweep()
    print(json.dumps(crowd.counts), flush=True)


def _hold(crowd: Crowd, pool: ThreadPoolExecutor, count: int, rate: float) -> None:
    ending = select.poll()
    ending.register(sys.stdin, select.POLLIN | select.POLLHUP)
    while not ending.poll(LOOK_MS):
        missing = count - crowd.sweep()
        began = time.monotonic()
        for _ in pool.map(lambda _: crowd.open_one(), range(min(missing, int(rate * LOOK_MS / 1000)))):
            pass
        crowd.counts["slowest_round_ms"] = max(crowd.counts["slowest_round_ms"], int(1000 * (time.monotonic() - began)))


if __name__ == "__main__":
    main()
