"""The node's listener: gives each connection a session of its own.

It never stops accepting. Whoever has not shown a ticket yet waits in the lobby (`transfer.doors`), where the oldest
gives way; whoever has one keeps its place, and is told BUSY, and when to come back, where there is none. Refuses to
do: the conversation (`nodes.session`).
"""

import ssl
from functools import partial
from typing import Final, Never

import trio

from nodes.admission import is_ours
from nodes.node import Node
from nodes.session import refuse, serve_session
from transfer import descriptors, stream
from transfer.doors import Doors, Guest
from transfer.errors import BusyError, FascicleError, ProtocolError
from transfer.groups import first_error
from transfer.lobby import Lobby
from transfer.log import get_logger
from transfer.places import Places
from transfer.stream import Stream
from transfer.tickets import Ticket

STRANGERS_MAX: Final = 256  # each with the memory of a handshake, a reader and what is left of them: 100 to 300 KiB
STRANGERS_ADDRESS_MAX: Final = 128
FLOWS_MAX: Final = 512  # those that send are far fewer (`nodes.credit`)
PARTY_FLOWS_MAX: Final = 128
KEPT: Final = 64  # for the gateway and other nodes
HANDSHAKE_S: Final = 10.0
ACCEPT_AGAIN_S: Final = 0.1
log = get_logger()


def make_doors(node: Node, limit: int) -> Doors:
    """Return the doors of a node whose process may have `limit` descriptors; an object under way takes one more."""
    room = descriptors.fit(STRANGERS_MAX + 2 * FLOWS_MAX, limit)
    places_max = min(FLOWS_MAX, max(4, room // 3))
    return Doors(
        Lobby(min(STRANGERS_MAX, max(4, room // 3)), STRANGERS_ADDRESS_MAX),
        Places(places_max, min(PARTY_FLOWS_MAX, places_max), kept=min(KEPT, places_max // 8)),
        on_turned_out=node.metrics.turned_out,
    )


async def serve_flows(
    node: Node, listener: trio.SocketListener, context: ssl.SSLContext | None, doors: Doors | None = None
) -> Never:
    """Accept connections for ever, each in a task of its own; `context` None for a plain data plane."""
    server = _Server(node, context, doors or make_doors(node, descriptors.raise_limit()))
    async with trio.open_nursery() as nursery:
        while True:
            try:
                accepted = await listener.accept()
            except OSError as error:  # such as no file descriptors left: the others go on
                log.error("accept_failed", reason=str(error))
                await trio.sleep(ACCEPT_AGAIN_S)
                continue
            server.take_in(accepted.socket, nursery)


class _Server:
    """What the connections of one listener share."""

    def __init__(self, node: Node, context: ssl.SSLContext | None, doors: Doors) -> None:
        self._node, self._context, self._doors = node, context, doors

    def take_in(self, socket: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        """Count a connection before anything of it runs, so that no burst has more places than there are."""
        scope = trio.CancelScope()
        guest = self._doors.enter(_host_of(socket), scope.cancel)
        nursery.start_soon(self._serve, socket, guest, scope)

    async def _serve(self, socket: trio.socket.SocketType, guest: Guest, scope: trio.CancelScope) -> None:
        """Run one session; whatever ends it ends nothing else."""
        try:
            with socket, scope:
                await self._converse(await _secure(socket, self._context), guest)
        except* FascicleError as group:
            error = first_error(group)
            log.info("flow_ended", code=error.code, reason=error.message)
        except* Exception as group:
            log.error("flow_crashed", exc_info=group)
        finally:
            guest.leave()

    async def _converse(self, connected: Stream, guest: Guest) -> None:
        async with stream.closing(connected):
            try:
                await serve_session(self._node, connected, partial(_admit, guest, connected))
            except* FascicleError as group:
                error = first_error(group)
                if isinstance(error, BusyError) and not error.retry_after_s:
                    error = guest.refusal(error.message)
                if error.code != "unreachable":
                    self._node.metrics.refused(error.code)
                    await refuse(connected, error)
                raise error from group


def _host_of(socket: trio.socket.SocketType) -> str:
    try:
        return str(socket.getpeername()[0])
    except OSError:
        return "gone"  # the session finds out by itself


async def _secure(socket: trio.socket.SocketType, context: ssl.SSLContext | None) -> Stream:
    with trio.move_on_after(HANDSHAKE_S):
        return await stream.secure(socket, context, server_side=True)
    raise ProtocolError(f"no TLS handshake within {HANDSHAKE_S:.0f} s")


def _admit(guest: Guest, connected: Stream, ticket: Ticket) -> None:
    peer = connected.peer
    guest.admit(ticket.holder if peer is None else peer.name, ours=is_ours(peer))
