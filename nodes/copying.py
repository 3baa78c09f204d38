"""The answer to COPY: objects that are here go to other nodes, over the same links as replicas of new ones.

Each is read with its digest checked on the way, and counts when the other nodes' own receipts have come. A copy that is
there already costs its bytes once more and nothing else. Refuses to do: choosing what goes where (the gateway does).
"""

from functools import partial

import trio

from nodes import admission
from nodes.node import Node
from nodes.objectfile import Record
from transfer.errors import FascicleError, NotStoredError
from transfer.protocol.messages import Copied, Copy, Refused
from transfer.receipts import Receipt
from transfer.tickets import Ticket

TEXT_MAX = 200  # of each refusal


async def answer_copy(node: Node, asked: Copy) -> Copied:
    """Copy what can be copied; return receipts for it, and refusals for the rest.

    Raises:
        UnauthorisedError: the ticket does not allow it here.
    """
    ticket = node.admit(asked.ticket, None)  # the flow's own ticket says who asks; this one, what for
    admission.require(ticket, "put")
    receipts: list[Receipt] = []
    failed: list[Refused] = []

    async def copy(object_id: bytes) -> None:
        try:
            record = await _find(node, object_id.hex())
            receipts.append(node.receipt(record, await _replicate(node, record, ticket, asked.ticket)))
        except FascicleError as error:
            failed.append(Refused(object_id, error.code, error.message[:TEXT_MAX]))

    async with trio.open_nursery() as nursery:
        for object_id in dict.fromkeys(asked.object_ids):
            nursery.start_soon(copy, object_id)
    return Copied(node.sign(ticket.transfer_id, receipts), failed)


async def _find(node: Node, object_id: str) -> Record:
    record = await trio.to_thread.run_sync(partial(node.store.contains, object_id), limiter=node.checks)
    if record is None:
        raise NotStoredError(f"{node.node_id} does not hold {object_id}")
    return record


async def _replicate(node: Node, record: Record, ticket: Ticket, signed: bytes) -> list[str]:
    """Return the ids of the other nodes of the ticket, which all hold the object now."""
    done = trio.Event()
    outcomes: list[list[str] | FascicleError] = []

    def on_done(outcome: list[str] | FascicleError) -> None:
        outcomes.append(outcome)
        done.set()

    node.replicator.submit(record, len(ticket.nodes) - 1, ticket, signed, on_done)
    await done.wait()
    if isinstance(outcomes[0], FascicleError):
        raise outcomes[0]
    return outcomes[0]
