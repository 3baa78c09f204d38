"""The agent's way to a gateway: one batch of the queue becomes one transfer of `transfer.sender`.

Credentials are read anew for each batch, so that renewed certificates (`agent.renewal`) need no restart. One that has
ended keeps the agent from sending, not from taking in. Refuses to do: choosing what goes, retrying, remembering.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from agent.delivery import Deliver, Sent
from agent.items import Item, Priority
from agent.renewal import certificate_of
from agent.settings import AgentSettings, DestinationSettings
from transfer import credentials
from transfer.client import GatewayClient
from transfer.control import priority as urgency
from transfer.control import timetable
from transfer.control.gate import Gate
from transfer.control.presence import default_folder, serve_presence
from transfer.errors import StorageError
from transfer.groups import first_error_only
from transfer.inspection import SourceFile
from transfer.outcomes import SendOptions, SendResult
from transfer.sender import send_files
from transfer.tls import client_context

URGENCY: Final = {
    Priority.STAT: urgency.Priority.STAT,
    Priority.NORMAL: urgency.Priority.ROUTINE,
    Priority.BULK: urgency.Priority.ROUTINE,
}
Given = tuple[SourceFile, int]  # what the sender was given, and the id of its item
PATIENCE_S: Final = 30.0  # then the batch failed, and the destination is backed off and shown as failing


def deliveries(settings: AgentSettings) -> dict[str, Deliver]:
    """Return each destination's way to deliver, by name.

    Raises:
        SettingsError: a credentials file cannot be used.
    """
    spool = Path(settings.spool.folder) / "ready"
    for destination in settings.destination:
        loaded = credentials.load(Path(destination.credentials))
        certificate = certificate_of(loaded)
        if certificate is None or certificate.not_valid_after_utc > datetime.now(UTC):  # else each batch says it
            client_context(loaded)
    memory = Path(settings.state) / "paths.json"
    return {destination.name: _Outbound(destination, spool, memory).deliver for destination in settings.destination}


class _Outbound:
    """One destination."""

    def __init__(self, settings: DestinationSettings, spool: Path, memory: Path) -> None:
        self._credentials, self._spool = Path(settings.credentials), spool
        self._gate = Gate()
        self._running = default_folder(os.environ)
        self._options = SendOptions(
            encoding=settings.encoding,
            flows=settings.flows or None,
            timetable=timetable.parse(settings.rate),
            workers=settings.workers or None,
            memory=memory,
            replicas=settings.replicas or None,
            patience_s=PATIENCE_S,
        )

    async def deliver(self, files: AsyncIterator[Item], priority: Priority) -> Sequence[Sent]:
        """Send a batch as one transfer; while a stat batch runs, others to this destination pause."""
        loaded = await trio.to_thread.run_sync(credentials.load, self._credentials)
        context = client_context(loaded)
        given: list[Given] = []
        async with (
            GatewayClient(loaded, patience_s=PATIENCE_S, context=context) as client,
            aclosing(self._sources(files, given)) as sources,
        ):
            options = replace(self._options, priority=URGENCY[priority])
            with first_error_only():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve_presence, self._gate, self._running, loaded.gateway, options.priority)
                    result = await send_files(client, sources, options, context=context, gate=self._gate)
                    nursery.cancel_scope.cancel()
        return sent(result, given)

    async def _sources(self, files: AsyncIterator[Item], given: list[Given]) -> AsyncGenerator[SourceFile, None]:
        async for item in files:
            source = SourceFile(item.location(self._spool), item.name, item.file.size_bytes, named=False)
            given.append((source, item.item_id))
            yield source


def sent(result: SendResult, given: Sequence[Given]) -> list[Sent]:
    """Return the queue's view of a transfer; without the commit's receipt nothing is done."""
    # Not by path: a file that changed since it was given is an item anew, and both states may be in one transfer.
    items = {id(source): item_id for source, item_id in given}
    uncommitted = StorageError("the transfer ended without a receipt")
    found = []
    for outcome in result.outcomes:
        error = outcome.error or (uncommitted if result.receipt is None else None)
        found.append(Sent(items[id(outcome.source)], "" if error else outcome.object_id, error))
    return found
