"""The gateway's listener: takes connections in through the doors (`transfer.doors`), before TLS costs anything.

It never stops accepting: strangers give way to strangers in a lobby of their own. uvicorn's way would keep all of them,
without a bound, until their handshakes time out, and then count them against those who work. Refuses to do: HTTP
(`gateway.connections`), deciding who is known (`gateway.entrance`).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

from transfer.doors import Doors, Guest
from transfer.log import get_logger

HANDSHAKE_S: Final = 10.0
GOODBYE_S: Final = 5.0  # of TLS; then the connection is closed
ACCEPT_AGAIN_S: Final = 0.1
Make = Callable[[Guest], asyncio.Protocol]
log = get_logger()


class Acceptor:
    """Accepts until closed; has what uvicorn asks of a server when it stops."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, doors: Doors, make: Make) -> None:
        self._listener, self._context, self._doors, self._make = listener, context, doors, make
        self._handshakes: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._task = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accept no more; handshakes that are under way end."""
        for task in [self._task, *self._handshakes]:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is left."""
        await asyncio.gather(self._task, *self._handshakes, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except OSError as error:  # such as no file descriptors left: the others go on
                log.error("accept_failed", reason=str(error))
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            guest = self._doors.enter(address[0], _shut(accepted))
            task = asyncio.create_task(self._take_in(accepted, guest))
            self._handshakes.add(task)
            task.add_done_callback(partial(self._forget, accepted=accepted, guest=guest))

    def _forget(self, task: "asyncio.Task[None]", *, accepted: socket.socket, guest: Guest) -> None:
        self._handshakes.discard(task)
        if task.cancelled():  # perhaps before its first step, when nothing else would close it
            accepted.close()
            guest.leave()

    async def _take_in(self, accepted: socket.socket, guest: Guest) -> None:
        is_through = False
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make(guest),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=GOODBYE_S,
            )
            is_through = not transport.is_closing()
        except OSError:
            pass  # no handshake: the scanners of a network do nothing else all day
        finally:
            if not is_through:
                guest.leave()


def _shut(accepted: socket.socket) -> Callable[[], None]:
    """Return what ends a connection whose handshake is under way: the loop sees its end and does the rest."""

    def shut() -> None:
        with contextlib.suppress(OSError):  # the peer has gone already
            accepted.shutdown(socket.SHUT_RDWR)

    return shut
