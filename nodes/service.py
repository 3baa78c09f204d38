"""`fascicle node serve`: puts a node together from its settings and runs it until it is told to stop.

    serve
     +- decoders (processes)     transfer.decoders
     +- store (threads)          nodes.store
     +- committer, 2 workers     nodes.committer
     +- listener                 nodes.server
     |   +- one session a flow   nodes.session
     +- replica links            nodes.replicate
     +- heartbeat                nodes.heartbeat
     +- trust                    nodes.trust      (when the gateway's URL is configured)
     +- certificate              nodes.renewal
     +- scrubber                 nodes.scrub      (unless switched off)
     +- running time             nodes.uptime
     +- paper listener           nodes.paper      (when configured)
     +- announcer                nodes.announce   (when configured)
     +- metrics listener         nodes.metrics    (when configured)

Refuses to do: anything a part can do itself.
"""

import signal
import ssl
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from nodes.announce import ANNOUNCEMENTS, Announcer
from nodes.heartbeat import beat
from nodes.lives import next_life
from nodes.metrics import serve_metrics
from nodes.node import Node
from nodes.paper import Paper, serve_paper
from nodes.renewal import keep_certificate
from nodes.scrub import Scrubber
from nodes.server import serve_flows
from nodes.store import Store
from nodes.trust import Trusted, keep_trust
from nodes.uptime import keep_uptime
from transfer import addresses, log, memory, pki, settings, tls
from transfer.decoders.pool import Here, Pool, open_decoders
from transfer.errors import SettingsError
from transfer.leftovers import clear_leftovers
from transfer.protocol.messages import NodeId
from transfer.stream import listen, port_of

logger = log.get_logger()


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node's TOML file; addresses are host:port, folders may be relative to the working folder.

    `advertise` is what agents connect to when it differs from `listen`. `failure_domain` names the host that this node
    shares its fate with. `reserve_bytes` stay free on the disk. `gateway` is the URL at which this node learns of keys
    and revocations. `paper_listen` opens the paper's own protocol, which knows no security; what comes by it is
    announced at `gateway`. Everything is re-read at `scrub_bytes_per_s` (0: never), beginning anew no sooner than
    `scrub_every_s` after the last beginning. `decoders` processes decode what comes as images.
    """

    node_id: NodeId
    data: str
    identity: str
    listen: str
    heartbeat: str
    gateway_public_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    advertise: str = ""
    failure_domain: str = ""
    plain: bool = False
    reserve_bytes: Annotated[int, Meta(ge=0)] = 256 << 20
    scrub_bytes_per_s: Annotated[int, Meta(ge=0, le=1 << 40)] = 8 << 20
    scrub_every_s: Annotated[float, Meta(ge=0, le=366 * 86_400)] = 7 * 86_400.0
    paper_listen: str = ""
    gateway: str = ""
    metrics_listen: str = ""
    decoders: Annotated[int, Meta(ge=1, le=64)] = 2
    log_level: str = "info"


def serve(path: Path) -> None:
    """Run the node of the configuration file `path` until SIGTERM or SIGINT.

    Raises:
        SettingsError: settings, identity or addresses that cannot be used; a folder that another node has.
    """
    loaded = settings.load(NodeSettings, path)
    if loaded.paper_listen and not loaded.gateway:
        raise SettingsError(f"{path}: `paper_listen` needs `gateway`, the URL at which such objects are announced")
    log.configure(role=loaded.node_id, level=loaded.log_level)
    warn_of_plain_listeners(loaded)
    memory.tune()
    with open_decoders(loaded.decoders) as decoders:
        trio.run(_main, loaded, decoders)


def warn_of_plain_listeners(loaded: NodeSettings) -> None:
    """Say which ports without TLS other machines may reach: they were asked for, perhaps without a thought."""
    asked = {"listen": loaded.listen * loaded.plain, "paper_listen": loaded.paper_listen}
    for key, where in (asked | {"metrics_listen": loaded.metrics_listen}).items():
        if where and not addresses.parse(where).is_loopback:
            logger.warning("listener_without_tls", key=key, address=where)


async def _main(loaded: NodeSettings, decoders: Pool | Here) -> None:
    data = Path(loaded.data)
    with await trio.to_thread.run_sync(Store.open, data, loaded.reserve_bytes, decoders.open_decoder) as store:
        await trio.to_thread.run_sync(clear_leftovers, data, data / ANNOUNCEMENTS, Path(loaded.identity))
        await trio.to_thread.run_sync(decoders.start)  # or the first images would wait for libraries
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                await _start(loaded, store, nursery)
                await anext(aiter(signals))
                logger.info("node_stopping")
                nursery.cancel_scope.cancel()


async def _start(loaded: NodeSettings, store: Store, nursery: trio.Nursery) -> None:
    identity = Path(loaded.identity)
    listener = await listen(addresses.parse(loaded.listen))
    client_context = None if loaded.plain else tls.client_context(identity)
    node = Node(
        node_id=loaded.node_id,
        store=store,
        signing_key=pki.load_signing_key(identity),
        trusted=Trusted.load(Path(loaded.data) / "trust.json", loaded.gateway_public_key),
        client_context=client_context,
        nursery=nursery,
    )
    context = None if loaded.plain else tls.server_context(identity, require_client=True)
    advertised = _advertised(loaded, port_of(listener))
    life = await trio.to_thread.run_sync(next_life, Path(loaded.data) / "life", time.time_ns())
    nursery.start_soon(node.committer.serve)
    nursery.start_soon(keep_uptime, node.trash.uptime)
    nursery.start_soon(partial(serve_flows, node, listener, context))
    nursery.start_soon(
        partial(
            beat,
            node,
            advertised,
            addresses.parse(loaded.heartbeat),
            failure_domain=loaded.failure_domain,
            life=life,
        )
    )
    renewed = [each for each in (context, client_context) if each is not None]  # by `nodes.renewal`
    if loaded.gateway:
        asking = tls.client_context(identity)
        renewed.append(asking)
        nursery.start_soon(keep_trust, node.trusted, loaded.gateway, identity, asking, node.end_revoked)
    nursery.start_soon(keep_certificate, loaded.gateway, identity, renewed)
    if loaded.scrub_bytes_per_s:
        scrubber = Scrubber(node, bytes_per_s=loaded.scrub_bytes_per_s, every_s=loaded.scrub_every_s)
        nursery.start_soon(scrubber.serve)
    if loaded.metrics_listen:
        metrics_listener = await listen(addresses.parse(loaded.metrics_listen))
        nursery.start_soon(serve_metrics, node.metrics.registry, metrics_listener)
    if loaded.paper_listen:
        renewed.append(await _start_paper(loaded, node, nursery))
    logger.info("node_ready", address=str(advertised), objects=node.objects(), free_bytes=node.free_bytes())


def _advertised(loaded: NodeSettings, port: int) -> addresses.Address:
    wished = addresses.parse(loaded.advertise or loaded.listen)
    return addresses.Address(wished.host, wished.port or port)


async def _start_paper(loaded: NodeSettings, node: Node, nursery: trio.Nursery) -> ssl.SSLContext:
    """Start the paper's protocol; return the TLS context of its announcements."""
    announcer = Announcer(
        Path(loaded.data) / ANNOUNCEMENTS,
        gateway=loaded.gateway,
        identity=Path(loaded.identity),
        sign=lambda records: node.sign("", [node.receipt(record) for record in records]),
    )
    nursery.start_soon(announcer.serve)
    address = addresses.parse(loaded.paper_listen)
    paper = Paper(node.store, node.committer.commit, announcer.announce)
    port = await nursery.start(serve_paper, paper, address.host, address.port)
    logger.info("paper_ready", port=port)
    return announcer.context
