"""Streams notice a peer whose machine is gone, also when nothing is being sent to it."""

import trio

from transfer.addresses import Address
from transfer.stream import closing, connect, listen, port_of, secure


async def test_both_ends_are_kept_alive_by_the_kernel() -> None:
    async with await listen(Address("127.0.0.1", 0)) as listener:
        client = await connect(Address("127.0.0.1", port_of(listener)), None)
        node = await secure((await listener.accept()).socket, None, server_side=True)
        async with closing(client), closing(node):
            for end in (client, node):
                assert end._socket.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE) == 1
                assert end._socket.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_KEEPIDLE) == 30
