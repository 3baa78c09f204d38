"""The gateway's Prometheus metrics, in a registry of its own. Labels are operations, codes and states: few.

    fascicle_gateway_requests_total{operation,status}       healthy: status 5xx stays at zero but for 503 and 507
    fascicle_gateway_request_seconds{operation}             healthy: below 0.1 s but for open, offer and commit
    fascicle_gateway_objects_durable_total                  objects in receipts that were taken, repeats included
    fascicle_gateway_commits_total                          commits answered, repeats included
    fascicle_gateway_heartbeats_total{outcome}              healthy: only `taken` grows
    fascicle_gateway_nodes{state}                           healthy: all are `live`
    fascicle_gateway_catalogue_waiting                      units that wait for the writer; healthy: near zero
    fascicle_gateway_free_bytes                             room on the disk of its data; healthy: above `reserve_bytes`
    fascicle_gateway_copies_damaged_total                   healthy: does not grow
    fascicle_gateway_copies_repaired_total                  grows when something is repaired
    fascicle_gateway_refused_total                          callers told to come back, no place; healthy: does not grow
    fascicle_gateway_turned_out_total                       connections that gave way to newer ones
    fascicle_gateway_objects_short                          fewer replicas than wished, by the last look; healthy: zero
    fascicle_gateway_folders_unlisted                       that nodes could not list, by the last look; healthy: zero

Refuses to do: names, ids or addresses of anyone as labels.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.liveness import State

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Metrics:
    """All metrics of one gateway."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        prefix = "fascicle_gateway"
        self.requests = Counter(f"{prefix}_requests", "Answers", ["operation", "status"], registry=registry)
        self.request_seconds = Histogram(
            f"{prefix}_request_seconds", "Time to an answer", ["operation"], buckets=_SECONDS, registry=registry
        )
        self.objects_durable = Counter(f"{prefix}_objects_durable", "Objects in receipts", registry=registry)
        self.commits = Counter(f"{prefix}_commits", "Commits answered", registry=registry)
        self.heartbeats = Counter(f"{prefix}_heartbeats", "Heartbeats", ["outcome"], registry=registry)
        self.copies_damaged = Counter(f"{prefix}_copies_damaged", "Copies found gone", registry=registry)
        self.copies_repaired = Counter(f"{prefix}_copies_repaired", "Copies made to repair", registry=registry)
        self.refused = Counter(f"{prefix}_refused", "Callers told to come back", registry=registry)
        self.turned_out = Counter(f"{prefix}_turned_out", "Connections that gave way", registry=registry)
        self.objects_short = Gauge(f"{prefix}_objects_short", "Fewer replicas than wished", registry=registry)
        self.folders_unlisted = Gauge(f"{prefix}_folders_unlisted", "That nodes could not list", registry=registry)
        self._nodes = Gauge(f"{prefix}_nodes", "Nodes by state", ["state"], registry=registry)
        self._waiting = Gauge(f"{prefix}_catalogue_waiting", "Units before the writer", registry=registry)
        self._free_bytes = Gauge(f"{prefix}_free_bytes", "Room on the disk of its data", registry=registry)

    def observe(
        self,
        *,
        count_nodes: Callable[[State], float],
        waiting: Callable[[], float],
        free_bytes: Callable[[], float],
    ) -> None:
        """Take these numbers when somebody asks."""
        for state in get_args(State):
            self._nodes.labels(state).set_function(partial(count_nodes, state))
        self._waiting.set_function(waiting)
        self._free_bytes.set_function(free_bytes)

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return generate_latest(self.registry)


def counted(app: Any, metrics: Metrics) -> Any:
    """Return the ASGI application with each request counted and timed under the name of its operation."""

    async def measure(scope: Any, receive: Any, send: Any) -> None:
        started_s = time.perf_counter()
        status = 0

        async def note(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, note)
        finally:
            handler = scope.get("route_handler")
            operation = str(handler.opt.get("operation", "other")) if handler is not None else "other"
            metrics.requests.labels(operation, status).inc()
            metrics.request_seconds.labels(operation).observe(time.perf_counter() - started_s)

    return measure
