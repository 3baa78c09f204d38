"""The node's listener: gives each connection a session of its own.

When `CONNECTIONS_MAX` are open, no more are accepted until one ends. Refuses to do: the conversation (`nodes.session`).
"""

import ssl
from typing import Final, Never

import trio

from nodes.node import Node
from nodes.session import refuse, serve_session
from transfer import stream
from transfer.errors import FascicleError, ProtocolError
from transfer.groups import first_error
from transfer.log import get_logger
from transfer.stream import Stream

CONNECTIONS_MAX: Final = 512
HANDSHAKE_S: Final = 10.0
log = get_logger()


async def serve_flows(node: Node, listener: trio.SocketListener, context: ssl.SSLContext | None) -> Never:
    """Accept connections for ever, each in a task of its own; `context` None for a plain data plane."""
    places = trio.Semaphore(CONNECTIONS_MAX)
    async with trio.open_nursery() as nursery:
        while True:
            await places.acquire()
            try:
                accepted = await listener.accept()
            except OSError as error:  # such as no file descriptors left: the others go on
                log.error("accept_failed", reason=str(error))
                places.release()
                await trio.sleep(0.1)
                continue
            nursery.start_soon(_serve_connection, node, accepted.socket, context, places)


async def _serve_connection(
    node: Node, socket: trio.socket.SocketType, context: ssl.SSLContext | None, places: trio.Semaphore
) -> None:
    """Run one session; whatever ends it ends nothing else."""
    try:
        with socket:
            await _run_session(node, await _secure(socket, context))
    except* FascicleError as group:
        error = first_error(group)
        log.info("flow_ended", code=error.code, reason=error.message)
    except* Exception as group:
        log.error("flow_crashed", exc_info=group)
    finally:
        places.release()


async def _secure(socket: trio.socket.SocketType, context: ssl.SSLContext | None) -> Stream:
    with trio.move_on_after(HANDSHAKE_S):
        return await stream.secure(socket, context, server_side=True)
    raise ProtocolError(f"no TLS handshake within {HANDSHAKE_S:.0f} s")


async def _run_session(node: Node, connected: Stream) -> None:
    async with stream.closing(connected):
        try:
            await serve_session(node, connected)
        except* FascicleError as group:
            error = first_error(group)
            if error.code != "unreachable":
                node.metrics.refused(error.code)
                await refuse(connected, error)
            raise error from group
