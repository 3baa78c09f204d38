"""The commands of upkeep: drain, trash. Each prints lines for people or, with `--json`, one object.

Refuses to do: what they say (the gateway does).
"""

import argparse
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import trio

from agent.progress import size_text
from agent.status import drain_text
from transfer import credentials
from transfer.errors import SettingsError
from transfer.joining import JoiningClient
from transfer.printable import printable
from transfer.upkeep import Drain, SomeTrash, TrashEntry

PATIENCE_S: Final = 10.0
PIECE: Final = 64  # ids in a request: all of them are read before they come back
SHOWN_MAX: Final = 1000  # entries that are listed for people; `--json` has all
Held = dict[str, list[TrashEntry]]


def run(arguments: argparse.Namespace) -> int:
    """Run the command that `arguments` name; returns 0, or 1 where not all that was asked is done."""
    task = "drain" if arguments.command == "drain" else arguments.task
    if task in ("undo", "purge") and bool(arguments.object) == arguments.all:
        raise SettingsError(f"say what to {task}: --object ID (may be repeated), or --all")

    async def ask() -> tuple[Any, str, int]:
        async with JoiningClient(credentials.load(arguments.to), patience_s=PATIENCE_S) as client:
            return await _TASKS[task](client, arguments)

    answer, lines, code = trio.run(ask)
    print(msgspec.json.encode(answer).decode() if arguments.json else lines)
    return code


async def _drain(client: JoiningClient, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    answer = await client.drain(Drain(node_id=arguments.name, undo=arguments.undo))
    return answer, "\n".join(map(drain_text, answer.drains)) or "no node drains", 0


async def _list(client: JoiningClient, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    held = await _held(client, arguments)
    entries = [(node_id, entry) for node_id, each in held.items() for entry in each]
    size = sum(entry.stored_bytes for _, entry in entries)
    lines = [f"{len(entries)} copies are put aside, {size_text(size)}"]
    lines += [
        f"{node_id}  {entry.object_id}  {printable(entry.reason)}  {size_text(entry.stored_bytes)}"
        f"  {_due_text(entry.due_s)}"
        for node_id, entry in entries[:SHOWN_MAX]
    ]
    return {"objects": len(entries), "bytes": size, "nodes": held}, "\n".join(lines), 0


async def _change(client: JoiningClient, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    asked = done = 0
    held = await _held(client, arguments)
    missing = sorted(set(arguments.object) - {entry.object_id for entries in held.values() for entry in entries})
    for node_id, entries in held.items():
        for some in _pieces([entry.object_id for entry in entries]):
            asked += len(some)
            done += await client.change_trash(arguments.task, SomeTrash(node_id=node_id, object_ids=some))
    what = "put back" if arguments.task == "undo" else "deleted"
    rest = "" if done == asked else "; the others stay: they are needed, cannot be read, or their nodes hold them not"
    lines = [f"{done} of {asked} copies are {what}{rest}"]
    lines += [f"{object_id} is in the trash of no node that is heard" for object_id in missing]
    answer = {"asked": asked, "objects": done, "missing": missing}
    return answer, "\n".join(lines), int(done < asked or bool(missing))


async def _orphans(client: JoiningClient, _: argparse.Namespace) -> tuple[Any, str, int]:
    put = 0
    while more := await client.put_orphans_aside():
        put += more
    return {"objects": put}, f"{put} orphans are put aside; `fascicle trash undo` brings them back", 0


async def _held(client: JoiningClient, arguments: argparse.Namespace) -> Held:
    """Return what is put aside, by node, of what the command is about; nodes that are not heard have no say."""
    wanted = set(arguments.object)
    nodes = [node.node_id for node in (await client.status()).nodes if node.state == "live"]
    if arguments.node:
        nodes = [arguments.node]
    held: Held = {}
    for node_id in nodes:
        after: str | None = ""
        while after is not None:
            page = await client.trash(node_id, after)
            found = [entry for entry in page.entries if not wanted or entry.object_id in wanted]
            if found:
                held.setdefault(node_id, []).extend(found)
            after = page.next
    return held


def _pieces(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + PIECE]) for start in range(0, len(ids), PIECE)]


def _due_text(due_s: int) -> str:
    return f"kept {due_s / 86_400:.1f} days more" if due_s else "may go"


Task = Callable[[JoiningClient, argparse.Namespace], Awaitable[tuple[Any, str, int]]]
_TASKS: Final[dict[str, Task]] = {
    "drain": _drain,
    "list": _list,
    "undo": _change,
    "purge": _change,
    "orphans": _orphans,
}
