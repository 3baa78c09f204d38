"""The heartbeat: tells the gateway every two seconds that this node lives, where, and how much room it has.

Datagrams may be lost, and the gateway may be away; neither concerns the node. Refuses to do: waiting for answers.
"""

import time
from typing import Never

import trio

from nodes.node import Node
from transfer import heartbeat
from transfer.addresses import Address
from transfer.heartbeat import Heartbeat
from transfer.log import get_logger

log = get_logger()


async def beat(node: Node, advertised: Address, gateway: Address, *, failure_domain: str) -> Never:
    """Send heartbeats for ever."""
    started_ns = time.time_ns()
    sequence = 0
    while True:
        sequence += 1
        statistics = node.store.statistics()
        datagram = heartbeat.sign(
            Heartbeat(
                node_id=node.node_id,
                incarnation=node.incarnation,
                started_ns=started_ns,
                sequence=sequence,
                host=advertised.host,
                port=advertised.port,
                failure_domain=failure_domain or node.node_id,
                free_bytes=statistics.free_bytes,
                used_bytes=statistics.stored_bytes,
                objects=statistics.objects,
                flows=node.flows,
                quarantined=statistics.quarantined,
                running_s=node.trash.uptime.now_s(),
            ),
            node.signing_key,
        )
        await _send(datagram, gateway)
        await trio.sleep(heartbeat.INTERVAL_S)


async def _send(datagram: bytes, gateway: Address) -> None:
    try:
        family, kind, protocol, _, address = (
            await trio.socket.getaddrinfo(gateway.host, gateway.port, type=trio.socket.SOCK_DGRAM)
        )[0]
        with trio.socket.socket(family, kind, protocol) as socket:
            await socket.sendto(datagram, address)
    except OSError as error:
        log.warning("heartbeat_not_sent", reason=error.strerror or str(error))
