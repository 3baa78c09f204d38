"""Whether a node that owes an answer is still there: a machine that hangs keeps its connections open.

Its kernel goes on answering for it, so neither TCP nor its keep-alive notices. Signs of life are bytes that come, and
bytes of ours that TCP saw acknowledged: a slow link takes its time. Where there are none, the node is asked for one.
Refuses to do: judging a node that owes nothing, deadlines of answers (a replica may take long; its node says PONG).
"""

from collections.abc import Callable
from typing import Final

import trio

from transfer.errors import UnreachableError
from transfer.flow import Flow

SILENCE_S: Final = 30.0  # a disk may stall for seconds, and a link be lost for as long
LOOK_S: Final = 2.0
PING_BYTES_MAX: Final = 64  # in a TLS record; that the other kernel took one says nothing


async def serve_watch(flow: Flow, owes: Callable[[], bool]) -> None:
    """Watch until cancelled; `owes` tells whether the node is to answer for something.

    Raises:
        UnreachableError: it was, and gave no sign of life for `SILENCE_S`; or the flow is closed.
    """
    async with trio.open_nursery() as nursery:
        received, acked, since_s = flow.received_bytes, _acked_bytes(flow), trio.current_time()
        while True:
            await trio.sleep(LOOK_S)
            alive = flow.received_bytes > received or _acked_bytes(flow) > acked + PING_BYTES_MAX
            received, acked, now_s = flow.received_bytes, _acked_bytes(flow), trio.current_time()
            if alive or not owes():
                since_s = now_s
            elif now_s - since_s >= SILENCE_S:
                raise UnreachableError(f"{flow.welcome.node_id} gave no sign of life for {SILENCE_S:.0f} s")
            else:
                nursery.start_soon(flow.ping)


def _acked_bytes(flow: Flow) -> int:
    info = flow.tcp_info()
    return flow.sent_bytes if info is None else info.acked_bytes
