"""A node reads no more from a client that does not read what it is told."""

from pathlib import Path

import trio
import trio.testing

from nodes.session import FRAMES_MAX, Session
from tests.flow.kit import open_cluster
from transfer.addresses import Address
from transfer.protocol.connection import ServerConnection
from transfer.protocol.messages import Ping
from transfer.stream import closing, connect, listen, port_of, secure
from transfer.tickets import Ticket


async def test_pings_are_not_read_while_a_thousand_pongs_wait(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, "n1") as cluster, await listen(Address("127.0.0.1", 0)) as listener:
        client = await connect(Address("127.0.0.1", port_of(listener)), None)
        node = await secure((await listener.accept()).socket, None, server_side=True)
        async with closing(client), closing(node), trio.open_nursery() as nursery:
            ticket = Ticket("t", "agent", "", ["put"], [], 1, 1, 0.0)
            session = Session(cluster.nodes["n1"].node, node, ServerConnection(), ticket, b"")
            for token in range(FRAMES_MAX + 1):
                await session._take(Ping(token))
            caught_up = trio.Event()

            async def catch_up() -> None:
                await session._let_replies_catch_up()
                caught_up.set()

            nursery.start_soon(catch_up)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not caught_up.is_set()
            await session._send_outbox()
            with trio.fail_after(5):
                await caught_up.wait()
