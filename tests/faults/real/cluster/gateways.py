"""A second gateway on the folder of one that serves, under load: it must refuse to start, and break nothing.

With the same configuration, and with one that differs in its ports. Refuses to do: folders shared between machines by a
network file system, whose locks are another matter.
"""

import random
import time
import tomllib
from typing import Final

from fascicle import layout
from tests.faults.real.cluster.running import Running

WAIT_S: Final = (0.2, 1.0)
REFUSED: Final = 2  # SettingsError.exit_code
WORDS: Final = "another gateway serves this folder; stop it first"
ENDED_S: Final = 30.0


class Gateways:
    """Starts second gateways beside a running cluster."""

    def __init__(self, running: Running, seed: int) -> None:
        self._running, self._seed = running, seed

    def try_second(self, number: int) -> None:
        """Start one, which must end by itself and say why; the first goes on, with the same process."""
        chance = random.Random(f"{self._seed} {number}")
        self._running.go_on(chance.uniform(*WAIT_S))
        site = self._running.site
        config, pid = site.gateway_config, site.gateway.pid
        if number % 2:
            other = tomllib.loads(config.read_text()) | {"listen": "127.0.0.1:0", "heartbeat_listen": "127.0.0.1:0"}
            config = site.data / "second.toml"
            config.write_text(layout.to_toml(other))
        second = site.part("second", "gateway", "serve", "--config", config)
        second.log.unlink(missing_ok=True)
        second.start()
        deadline_s = time.monotonic() + ENDED_S
        while (code := second.ended()) is None and time.monotonic() < deadline_s:
            self._running.go_on(0.01)
        problems = [] if code == REFUSED and WORDS in second.tail() else [f"it does not refuse: {code} {second.tail()}"]
        problems += [] if site.gateway.pid == pid else ["the first gateway ended"]
        second.end()
        self._running.totals.note(f"second gateway {number}", problems)
