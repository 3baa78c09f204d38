"""`fascicle status`: nodes, space and transfers, as the gateway sees them.

A table on a terminal, plain lines elsewhere, one JSON object (`transfer.api.Status`) with `--json`; with `--watch`
again every second. The lines are made by a pure function. Refuses to do: asking nodes, judging health.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.progress import size_text
from transfer import credentials as credentials_file
from transfer.api import DrainStatus, NodeStatus, RepairStatus, Status, TransferStatus
from transfer.client import GatewayClient
from transfer.errors import UnreachableError
from transfer.printable import printable

PATIENCE_S: Final = 10.0
WATCH_EVERY_S: Final = 1.0
STATE_STYLES: Final = {"live": "green", "silent": "red", "unknown": "yellow"}
NODE_COLUMNS: Final = ("node", "state", "address", "objects", "used", "free", "flows", "heard")
TRANSFER_COLUMNS: Final = ("transfer", "state", "sender", "objects", "durable", "bytes", "opened")


def run(*, credentials: Path, as_json: bool, watch: bool) -> int:
    """Print the status, with `watch` until interrupted; returns the exit code.

    Raises:
        SettingsError: the credentials cannot be used.
        UnreachableError: the gateway does not answer (while watching this is shown, and asked again).
        FascicleError: what the gateway refused.
    """
    trio.run(_show, credentials_file.load(credentials), as_json, watch)
    return 0


async def _show(mine: credentials_file.Credentials, as_json: bool, watch: bool) -> None:
    on_terminal = sys.stdout.isatty() and not as_json
    patience_s = 0.0 if watch else PATIENCE_S
    async with GatewayClient(mine, patience_s=patience_s) as gateway:
        if watch and on_terminal:
            await _watch_on_terminal(gateway)
        while True:
            status = await gateway.status()
            _print(status, as_json=as_json, on_terminal=on_terminal)
            if not watch:
                return
            await trio.sleep(WATCH_EVERY_S)


async def _watch_on_terminal(gateway: GatewayClient) -> None:
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                live.update(_tables(await gateway.status()), refresh=True)
            except UnreachableError as error:
                live.update(Text(f"{printable(error.message)}; asking again", style="red"), refresh=True)
            await trio.sleep(WATCH_EVERY_S)


def _print(status: Status, *, as_json: bool, on_terminal: bool) -> None:
    if as_json:
        print(msgspec.json.encode(status).decode(), flush=True)
    elif on_terminal:
        Console().print(_tables(status))
    else:
        print("\n".join(lines(status)), flush=True)


def lines(status: Status) -> Iterator[str]:
    """Return the status as lines: one of totals, one a node, one a transfer."""
    yield _totals(status)
    if (repairs := _repairs(status.repairs)) is not None:
        yield f"repairs {repairs}"
    yield from map(drain_text, status.repairs.drains)
    for node in status.nodes:
        yield "node " + " ".join(_named(NODE_COLUMNS, _node_row(node)))
    for transfer in status.transfers:
        yield "transfer " + " ".join(_named(TRANSFER_COLUMNS, _transfer_row(transfer)))


def _named(columns: tuple[str, ...], row: tuple[str, ...]) -> Iterator[str]:
    yield row[0]
    for column, value in zip(columns[1:], row[1:], strict=True):
        yield f"{column}={value.replace(' ', '')}"


def _tables(status: Status) -> Table:
    whole = Table.grid()
    whole.add_row(Text(_totals(status), style="bold"))
    if (repairs := _repairs(status.repairs)) is not None:
        whole.add_row(Text(repairs, style="red" if status.repairs.lost_objects else "yellow"))
    for drain in status.repairs.drains:
        whole.add_row(Text(drain_text(drain), style="green" if drain.safe else "yellow"))
    whole.add_row(_table(NODE_COLUMNS, [_node_row(node) for node in status.nodes]))
    if status.transfers:
        whole.add_row(_table(TRANSFER_COLUMNS, [_transfer_row(transfer) for transfer in status.transfers]))
    return whole


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(value, style=STATE_STYLES.get(value, "")) for value in row))
    return table


def _totals(status: Status) -> str:
    live = sum(node.state == "live" for node in status.nodes)
    saved = 1 - status.stored_bytes / status.bytes if status.bytes else 0.0
    return (
        f"{status.objects} objects in {status.studies} studies, {size_text(status.bytes)} "
        f"({size_text(status.stored_bytes)} as they rest: {saved:.0%} saved), {live} of {len(status.nodes)} nodes live"
    )


def _repairs(repairs: RepairStatus) -> str | None:
    """Return what is or was to be repaired; None where there never was anything."""
    if repairs == RepairStatus():
        return None
    gone = f", gone: {' '.join(repairs.gone_nodes)}" if repairs.gone_nodes else ""
    gone += f", draining: {' '.join(repairs.draining_nodes)}" if repairs.draining_nodes else ""
    gone += f", running twice (a cloned disk?): {' '.join(repairs.twin_nodes)}" if repairs.twin_nodes else ""
    sick = ", ".join(f"{count} of {node_id}" for node_id, count in sorted(repairs.unlisted_folders.items()))
    gone += f", folders that cannot be read (look at its log and its disk): {sick}" if sick else ""
    orphans = f"{repairs.orphan_objects} orphans ({size_text(repairs.orphan_bytes)})"
    orphans += ", too many to go without your word" if repairs.orphans_wait else ""
    orphans += (
        f", {repairs.trash_objects} put aside ({size_text(repairs.trash_bytes)})" if repairs.trash_objects else ""
    )
    return (
        f"{repairs.damaged_total} copies damaged and {repairs.repaired_total} made ever; now {repairs.short_objects} "
        f"objects short of replicas ({repairs.waiting_objects} wait), {repairs.damaged_objects} damaged and not made "
        f"good, {repairs.lost_objects} lost, {orphans}{gone}"
    )


def drain_text(drain: DrainStatus) -> str:
    """Return how a node stands that is to be taken away."""
    if drain.safe:
        return f"drain {drain.node_id}: nothing needs it any more; it is safe to switch off"
    if drain.left_objects < 0:
        return f"drain {drain.node_id}: not looked at yet"
    left = f"{drain.left_objects} objects ({size_text(drain.left_bytes)}) are to be copied from it"
    claimed = f", {drain.claimed_objects} of open transfers are on it" if drain.claimed_objects else ""
    return f"drain {drain.node_id}: {left}{claimed}; do not switch it off"


def _node_row(node: NodeStatus) -> tuple[str, ...]:
    heard = "never" if node.heartbeat_age_s is None else f"{node.heartbeat_age_s:.1f} s ago"
    space = (size_text(node.used_bytes), size_text(node.free_bytes))
    return (node.node_id, node.state, printable(node.address), str(node.objects), *space, str(node.flows), heard)


def _transfer_row(one: TransferStatus) -> tuple[str, ...]:
    counts = (str(one.objects), str(one.durable_objects), size_text(one.bytes))
    return (one.transfer_id, one.state, printable(one.sender), *counts, one.opened_at)
