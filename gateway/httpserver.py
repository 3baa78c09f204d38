"""uvicorn as the gateway runs it: behind its own acceptor and doors, without signals and limits of its own.

Refuses to do: the application (`gateway.http`).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import uvicorn

from gateway.acceptor import Acceptor
from gateway.connections import connection_type
from gateway.entrance import Entrance
from gateway.metrics import Metrics
from gateway.settings import GatewaySettings
from transfer import descriptors
from transfer.doors import Doors, Guest
from transfer.lobby import Lobby
from transfer.places import Places
from transfer.tls import Peer

GOODBYE_S: Final = 5  # requests that run get this long when the gateway is told to stop
KEPT_SHARE: Final = 16  # one place of so many is for nodes alone


def make_server(
    config: GatewaySettings, app: Any, context: ssl.SSLContext, metrics: Metrics, is_revoked: Callable[[Peer], bool]
) -> uvicorn.Server:
    """Return the server; `serve(sockets=[listener])` runs it."""
    doors = make_doors(config, descriptors.raise_limit(), metrics)
    made = connection_type(
        header_bytes_max=config.header_bytes_max,
        header_timeout_s=config.header_timeout_s,
        body_timeout_s=config.body_timeout_s,
    )
    return _Server(_settings(config, Entrance(app, doors, is_revoked), made), context, doors)


def make_doors(config: GatewaySettings, limit: int, metrics: Metrics) -> Doors:
    """Return the doors that `config` asks for, smaller where `limit` descriptors are too few for them."""
    wished = config.connections_max + config.strangers_max
    share = descriptors.fit(wished, limit) / wished
    known, strangers = (max(1, int(each * min(share, 1.0))) for each in (config.connections_max, config.strangers_max))
    party_max = min(config.party_connections_max, known)
    lobby: Lobby[Guest] = Lobby(strangers, max(1, strangers // 2))
    places: Places[Guest] = Places(known, party_max, kept=known // KEPT_SHARE)
    return Doors(lobby, places, on_turned_out=metrics.turned_out.inc, on_refused=metrics.refused.inc)


class _Server(uvicorn.Server):
    """uvicorn, with signals left to `gateway.service`: it would die of the signal again after a clean stop."""

    def __init__(self, settings: uvicorn.Config, context: ssl.SSLContext, doors: Doors) -> None:
        super().__init__(settings)
        self._context, self._doors = context, doors

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = [Acceptor(each, self._context, self._doors, self._make) for each in sockets or []]  # type: ignore[misc]  # closes and is waited for like asyncio's
        self.started = True

    def _make(self, guest: Guest) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: Any = make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )
        made.guest = guest
        return cast(asyncio.Protocol, made)


def _settings(config: GatewaySettings, app: Any, connection: type[asyncio.Protocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=int(config.keep_alive_s),
        timeout_graceful_shutdown=GOODBYE_S,
    )
