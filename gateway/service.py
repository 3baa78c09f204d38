"""`fascicle gateway serve`: reads the settings, puts the parts together, serves until SIGTERM or SIGINT.

Nothing but the catalogue is state: killed at any moment and started again, a gateway goes on where it was. Refuses to
do: what the parts do.
"""

import asyncio
import contextlib
import fcntl
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop

from gateway import catalogue_age, catalogue_mode, renewal
from gateway.audit import Audit, log_path
from gateway.database import Database
from gateway.draining import Draining
from gateway.heartbeats import Heartbeats
from gateway.http import make_app
from gateway.httpserver import make_server
from gateway.liveness import Nodes
from gateway.membership import Membership
from gateway.metrics import Metrics, counted
from gateway.nodelink import NodeLinks
from gateway.register import Register
from gateway.rehearsal import rehearse
from gateway.repairer import Repairer
from gateway.repairlink import RepairLinks
from gateway.replacement import refuse_half_made
from gateway.settings import GatewaySettings
from gateway.signatures import NodeKeys
from gateway.signing import SigningKeys
from gateway.tickets import Tickets
from gateway.upkeep import Upkeep
from gateway.uploads import Uploads
from transfer import addresses, disk, log, pki, settings, tls
from transfer.durable import make_folder_durably
from transfer.errors import FascicleError, SettingsError
from transfer.leftovers import clear_leftovers

BACKLOG: Final = 512


def serve(path: Path) -> None:
    """Serve the gateway that `path` configures until SIGTERM or SIGINT.

    Raises:
        SettingsError: configuration, identity, catalogue or a port that cannot be used.
    """
    config = settings.load(GatewaySettings, path)
    log.configure(role="gateway", level=config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(config))


class Running:
    """A gateway that serves: where, and how to stop it."""

    def __init__(
        self,
        server: uvicorn.Server,
        listener: socket.socket,
        heartbeats: tuple[str, int],
        failure: "Future[FascicleError]",
    ) -> None:
        self._server = server
        self._failure = failure
        self.port: int = listener.getsockname()[1]
        self.heartbeat_port: int = heartbeats[1]

    def stop(self) -> None:
        """Finish what runs, then end."""
        self._server.should_exit = True

    def raise_failure(self) -> None:
        """Raise what made it stop by itself, if anything did.

        Raises:
            FascicleError: the audit trail cannot go on.
        """
        if self._failure.done():
            raise self._failure.result()


async def run(config: GatewaySettings) -> None:
    """Serve until a signal comes.

    Raises:
        FascicleError: what was to be served cannot be any longer; a start may mend it.
    """
    async with open_gateway(config) as (running, serving):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.stop)
        log.get_logger().info("gateway_ready", port=running.port, heartbeat_port=running.heartbeat_port)
        await serving
    log.get_logger().info("gateway_stopped")
    running.raise_failure()


@contextlib.asynccontextmanager
async def open_gateway(config: GatewaySettings) -> AsyncIterator[tuple[Running, asyncio.Task[None]]]:
    """Serve within the context; the task ends when the gateway was told to stop.

    Raises:
        SettingsError: identity, catalogue or a port that cannot be used.
    """
    with locked(Path(config.data)), contextlib.ExitStack() as stack:
        clear_leftovers(Path(config.data), Path(config.data) / "ticket-keys", Path(config.identity))
        refuse_half_made(Path(config.data))
        listener = stack.enter_context(_listen(config.listen))
        context = tls.server_context(Path(config.identity), require_client=False)
        metrics, keys = Metrics(), NodeKeys(config.node)
        nodes = Nodes((entry.node_id for entry in config.node), config.silent_after_s)
        audit = stack.enter_context(  # before its end is read: a crash may have left it in pieces
            contextlib.closing(Audit(Path(config.data), pki.load_signing_key(Path(config.identity))))
        )
        commits = catalogue_age.last_commits(log_path(Path(config.data)))
        catalogue_age.refuse_lost(config.database, commits)
        catalogue_mode.close_to_others(config.database)
        database = stack.enter_context(contextlib.closing(Database(config.database)))
        await catalogue_age.refuse_old(database, config.database, commits)
        await rehearse(database, pki.load_signing_key(Path(config.identity)))
        register = Register(Path(config.data) / "register.json")
        signing = SigningKeys(Path(config.identity), Path(config.data) / "ticket-keys", register)
        membership = Membership(config, register=register, signing=signing, keys=keys, nodes=nodes, audit=audit)
        tickets, outgoing = _tickets(config, keys, signing), _context(config)
        links = stack.enter_context(contextlib.closing(_links(config, register, tickets, outgoing)))
        draining = Draining(config, register)
        repairs = stack.enter_context(contextlib.closing(repair_links(config, keys, register, tickets, outgoing)))
        repairer = Repairer(
            settings=config,
            database=database,
            nodes=nodes,
            links=repairs,
            tickets=tickets,
            metrics=metrics,
            draining=draining,
        )
        await repairer.old_disks.read()
        upkeep = Upkeep(
            settings=config,
            database=database,
            nodes=nodes,
            links=repairs,
            repairer=repairer,
            audit=audit,
        )
        uploads = _uploads(
            config,
            metrics,
            tickets,
            database=database,
            nodes=nodes,
            keys=keys,
            links=links,
            audit=audit,
            draining=draining,
            recall=upkeep.trash.recall,
            lasting=repairer.lasting,
            old_disks=repairer.old_disks,
            on_short=repairer.look_soon,
        )
        app = make_app(
            uploads=uploads,
            database=database,
            nodes=nodes,
            repairer=repairer,
            upkeep=upkeep,
            metrics=metrics,
            membership=membership,
            audit=audit,
            request_bytes_max=config.request_bytes_max,
        )
        heartbeats = Heartbeats(nodes, keys, database, metrics, links.keep_open, on_replaced=repairer.look_soon)
        datagrams = await listen_heartbeats(config.heartbeat_listen, heartbeats)
        stack.callback(datagrams.close)
        membership.heartbeat_port = datagrams.get_extra_info("sockname")[1]
        metrics.observe(
            count_nodes=lambda state: nodes.count(state, time.monotonic()),
            waiting=lambda: database.waiting_count,
            free_bytes=lambda: disk.free_bytes(config.data),
        )
        server = make_server(config, counted(app, metrics), context, metrics, membership.is_revoked)
        running = Running(server, listener, datagrams.get_extra_info("sockname"), audit.failure)
        audit.failure.add_done_callback(lambda _: running.stop())  # a flag, from the trail's thread
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        contexts = [context, *([outgoing] if outgoing else [])]
        renewing = asyncio.create_task(renewal.keep_certificate(config, contexts, tickets.renewed))
        repairing = asyncio.gather(repairer.serve(), upkeep.serve())
        try:
            yield running, serving
        finally:
            renewing.cancel()
            running.stop()
            await serving
            repairing.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # ours, from the line before
                await repairing


def repair_links(
    config: GatewaySettings,
    keys: NodeKeys,
    register: Register,
    tickets: Tickets | None = None,
    context: ssl.SSLContext | None = None,
) -> RepairLinks:
    """Return the flows for listing and repair, none of them open yet; without a gateway around it on its own."""
    if tickets is None:
        signing = SigningKeys(Path(config.identity), Path(config.data) / "ticket-keys", register)
        tickets = _tickets(config, keys, signing)
    tls_ = context or _context(config)
    return RepairLinks(keys, tickets.for_repair, tls_, register.is_revoked, list_timeout_s=config.list_timeout_s)


def _context(config: GatewaySettings) -> ssl.SSLContext | None:
    return None if config.plain else tls.client_context(Path(config.identity))


def _links(config: GatewaySettings, register: Register, tickets: Tickets, context: ssl.SSLContext | None) -> NodeLinks:
    return NodeLinks(
        tickets.for_itself,
        context,
        register.is_revoked,
        reserve_timeout_s=config.reserve_timeout_s,
        check_timeout_s=config.check_timeout_s,
    )


def _tickets(config: GatewaySettings, keys: NodeKeys, signing: SigningKeys) -> Tickets:
    return Tickets(renewal.own_peer(config), keys, signing, lifetime_s=config.ticket_lifetime_s, plain=config.plain)


def _uploads(config: GatewaySettings, metrics: Metrics, tickets: Tickets, **parts: Any) -> Uploads:
    return Uploads(
        settings=config,
        metrics=metrics,
        tickets=tickets,
        signing_key=pki.load_signing_key(Path(config.identity)),
        **parts,
    )


def _listen(where: str) -> socket.socket:
    """Return the listening socket, so that a port in use is told before anything else starts."""
    host, port = addresses.parse(where)
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
        # Inherited by what is accepted. An answer is two writes: with Nagle's delay the second waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener  # noqa: TRY300  # both steps fail alike
    except OSError as error:
        raise SettingsError(f"the gateway cannot listen on {where}: {error.strerror}; choose another port") from error


async def listen_heartbeats(where: str, protocol: Heartbeats) -> asyncio.DatagramTransport:
    """Take heartbeats at a UDP port.

    Raises:
        SettingsError: it cannot be used.
    """
    host, port = addresses.parse(where)
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: protocol, local_addr=(host, port), family=_family(host)
        )
    except OSError as error:
        raise SettingsError(
            f"the gateway cannot take heartbeats on UDP {where}: {error.strerror}; choose another port"
        ) from error
    return transport


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data folder for this process alone; the lock ends with the process, however it ends.

    Raises:
        SettingsError: another process has it, or it cannot be used.
    """
    try:
        make_folder_durably(data)
        file = (data / "gateway.lock").open("wb")
    except (OSError, FascicleError) as error:
        raise SettingsError(f"{data}: the data folder cannot be used: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(f"{data}: another gateway serves this folder; stop it first") from error
        yield
