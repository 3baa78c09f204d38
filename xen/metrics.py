"""The reconciler's metrics (docs/metrics.md), for Prometheus.

The listener is `prometheus_client`'s own, in a thread, on the address that the pool file names. Refuses to do: labels
that name machines or hosts.
"""

import math
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from transfer import addresses
from transfer.errors import SettingsError
from xen.actions import Action, Plan
from xen.observed import Pool, Stage
from xen.wanted import Wanted

HOST_STATES = ("open", "closed", "gone")


class Metrics:
    """Counters since the process started, and what was seen last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry = CollectorRegistry()
        self._clock = clock
        self._looked_s = clock()
        self._steps = Counter("fascicle_pool_steps", "Steps by outcome.", ["step", "outcome"], registry=registry)
        self._rounds = Counter("fascicle_pool_rounds", "Rounds by outcome.", ["outcome"], registry=registry)
        self._wanted = Gauge("fascicle_pool_nodes_wanted", "Nodes that are wanted.", registry=registry)
        self._machines = Gauge("fascicle_pool_machines", "Machines by stage.", ["stage"], registry=registry)
        self._hosts = Gauge("fascicle_pool_hosts", "Hosts by state.", ["state"], registry=registry)
        self._left = Gauge("fascicle_pool_steps_planned", "Steps to do, at the last look.", registry=registry)
        self._growth = Counter(
            "fascicle_pool_growth", "Looks at the nodes' room by outcome.", ["outcome"], registry=registry
        )
        self._grown = Counter("fascicle_pool_nodes_grown", "Nodes added because space was short.", registry=registry)
        self._free = Gauge("fascicle_pool_free_ratio", "Share of the nodes' room that is free.", registry=registry)
        self._free.set(math.nan)  # zero would be a full disk
        age = Gauge("fascicle_pool_look_age_seconds", "Since the pool was last looked at.", registry=registry)
        age.set_function(lambda: self._clock() - self._looked_s)

    def saw(self, wanted: Wanted, pool: Pool, plan: Plan) -> None:
        """Take in a look at the pool, and what is to be done."""
        self._looked_s = self._clock()
        self._wanted.set(wanted.count)
        self._left.set(len(plan.actions))
        stages = Counts(machine.stage for machine in pool.machines)
        for stage in Stage:
            self._machines.labels(stage.value).set(stages[stage])
        states = Counts("gone" if not host.alive else "open" if host.open else "closed" for host in pool.hosts)
        for state in HOST_STATES:
            self._hosts.labels(state).set(states[state])

    def saw_room(self, free_ratio: float | None) -> None:
        """Take in which share of the nodes' room is free; None: not known."""
        self._free.set(math.nan if free_ratio is None else free_ratio)

    def grew(self, outcome: str, nodes: int) -> None:
        """Count a look at the room by what came of it, and the nodes that it added."""
        self._growth.labels(outcome).inc()
        self._grown.inc(nodes)

    def stepped(self, action: Action, outcome: str) -> None:
        """Count a step: `done`, or the code of its error."""
        self._steps.labels(type(action).__name__.lower(), outcome).inc()

    def rounded(self, outcome: str) -> None:
        """Count a round: `done`, or the code of its error."""
        self._rounds.labels(outcome).inc()


@contextmanager
def open_listener(metrics: Metrics, listen: str) -> Iterator[None]:
    """Answer scrapes at HOST:PORT; '' for none.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    if not listen:
        yield
        return
    address = addresses.parse(listen)
    try:
        server, thread = start_http_server(address.port, address.host, metrics.registry)
    except OSError as error:
        raise SettingsError(f"`watch.metrics_listen`: {listen} cannot be listened on: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
