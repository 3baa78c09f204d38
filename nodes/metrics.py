"""A node's metrics (docs/metrics.md), and the small HTTP listener that Prometheus reads them from.

The listener answers `GET /metrics` and nothing else, one request a connection, on the address that the settings name
(loopback unless an operator says otherwise). Refuses to do: labels that name objects, senders or patients.
"""

from collections.abc import Callable
from typing import Final

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from nodes.objectfile import Record

REQUEST_BYTES_MAX: Final = 8192
REQUEST_S: Final = 5.0


class Metrics:
    """Counters since the process started, and gauges that are read when asked for."""

    def __init__(self, *, free_bytes: Callable[[], int], objects: Callable[[], int], flows: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self._stored = Counter("fascicle_node_objects_stored", "Objects made durable.", registry=registry)
        self._stored_bytes = Counter("fascicle_node_stored_bytes", "Bytes made durable, as stored.", registry=registry)
        self._original_bytes = Counter("fascicle_node_original_bytes", "The same, as originals.", registry=registry)
        self._served = Counter("fascicle_node_objects_served", "Objects read by clients.", registry=registry)
        self._refused = Counter("fascicle_node_refusals", "Objects and flows refused.", ["code"], registry=registry)
        self._scrubbed = Counter("fascicle_node_scrubbed_objects", "Objects re-read.", registry=registry)
        self._scrubbed_bytes = Counter("fascicle_node_scrubbed_bytes", "The same in bytes.", registry=registry)
        self._turned_out = Counter("fascicle_node_turned_out", "Strangers that gave way.", registry=registry)
        for name, text, read in (
            ("fascicle_node_free_bytes", "Room above the reserve.", free_bytes),
            ("fascicle_node_objects", "Objects stored here.", objects),
            ("fascicle_node_flows", "Open flows.", flows),
        ):
            Gauge(name, text, registry=registry).set_function(read)

    def stored(self, record: Record) -> None:
        """Count an object that became durable."""
        self._stored.inc()
        self._stored_bytes.inc(record.stored_bytes)
        self._original_bytes.inc(record.size_bytes)

    def served(self, record: Record) -> None:
        """Count an object that a client read."""
        self._served.inc()

    def scrubbed(self, stored_bytes: int) -> None:
        """Count an object that the scrubber has re-read."""
        self._scrubbed.inc()
        self._scrubbed_bytes.inc(stored_bytes)

    def turned_out(self) -> None:
        """Count a connection that gave way to a newer one before it had shown a ticket."""
        self._turned_out.inc()

    def refused(self, code: str) -> None:
        """Count a refusal by its error code."""
        self._refused.labels(code).inc()


async def serve_metrics(registry: CollectorRegistry, listener: trio.SocketListener) -> None:
    """Answer scrapes until cancelled."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with trio.move_on_after(REQUEST_S):
                try:
                    await stream.send_all(_answer(registry, await _read_request(stream)))
                except trio.BrokenResourceError:
                    return  # the scraper went away; the next one asks anew

    await trio.serve_listeners(handle, [listener])


async def _read_request(stream: trio.SocketStream) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and len(request) < REQUEST_BYTES_MAX:
        piece = await stream.receive_some(REQUEST_BYTES_MAX - len(request))
        if not piece:
            break
        request += piece
    return request


def _answer(registry: CollectorRegistry, request: bytes) -> bytes:
    if request.split(b" ", 2)[:2] != [b"GET", b"/metrics"]:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    body = generate_latest(registry)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
