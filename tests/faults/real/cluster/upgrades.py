"""Upgrades of a running cluster in the middle of transfers: all parts are restarted, one after the other.

Each gets SIGTERM, must end well by itself in time, and is started again, as a package manager does. Every `send` that
runs meanwhile must end with exit code 0 at its first attempt. Refuses to do: kills; different versions (there is one).
"""

import random
import signal
import time
from typing import Final

import httpx

from tests.faults.real.cluster.parts import Part
from tests.faults.real.cluster.running import Running
from transfer import credentials, tls

BETWEEN_S: Final = (0.0, 1.0)
STOP_S: Final = 12.0
LIVE_S: Final = 30.0


class Upgrades:
    """Rolling upgrades of one running cluster."""

    def __init__(self, running: Running, seed: int) -> None:
        self._running, self._seed = running, seed
        self.restarts = 0
        self.stopped_s_max = self.served_s_max = 0.0

    def upgrade(self, number: int) -> None:
        """Let upgrade `number` happen: a node is restarted when the one before is live again."""
        chance = random.Random(f"{self._seed} {number}")
        site = self._running.site
        nodes = list(site.nodes)
        chance.shuffle(nodes)
        before = dict(self._running.load.failed)
        self._go_on_until_all_live(f"upgrade {number}")  # a part that still loads its code ends by the signal itself
        for part in (site.gateway, site.agent, *nodes):
            self._running.go_on(chance.uniform(*BETWEEN_S))
            self._restart(part, f"upgrade {number}")
        failed = {words: count for words, count in self._running.load.failed.items() if before.get(words) != count}
        self._running.totals.note(f"upgrade {number}", [f"a command failed: {words}" for words in failed])

    def _restart(self, part: Part, where: str) -> None:
        self._running.held.add(part.name)
        self._running.excused.add(part.name)
        began_s = time.monotonic()
        part.send(signal.SIGTERM)
        while (code := part.ended()) is None and time.monotonic() - began_s < STOP_S:
            self._running.go_on(0.01)
        self.stopped_s_max = max(self.stopped_s_max, round(time.monotonic() - began_s, 2))
        if code != 0:
            part.end()
            self._running.totals.note(where, [f"{part.name} ends with {code} after SIGTERM: {part.tail()}"])
        self._running.held.discard(part.name)
        self.restarts += 1
        self.served_s_max = max(self.served_s_max, round(self._go_on_until_all_live(f"{where}: {part.name}"), 2))

    def _go_on_until_all_live(self, where: str) -> float:
        """Return how many seconds it took."""
        began_s = time.monotonic()
        while not self._all_live() and time.monotonic() - began_s < LIVE_S:
            self._running.go_on(0.05)
        took_s = time.monotonic() - began_s
        if took_s >= LIVE_S:
            self._running.totals.note(where, ["not everybody serves"])
        return took_s

    def _all_live(self) -> bool:
        """Ask the gateway, as whoever upgrades would, whether everybody is there."""
        self._running.tend()
        own = credentials.load(self._running.site.credentials)
        try:
            with httpx.Client(base_url=own.gateway, verify=tls.client_context(own), timeout=2) as client:
                nodes = client.get("/api/v1/status").raise_for_status().json()["nodes"]
        except httpx.HTTPError:
            return False
        parts = self._running.site.parts
        return all(node["state"] == "live" for node in nodes) and all(part.pid for part in parts)
