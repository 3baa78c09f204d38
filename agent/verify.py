"""`fascicle verify`: asks every node for every replica that the catalogue names; `--deep` has it re-read every byte.

The nodes do the reading, so no image crosses the link. Refuses to do: repair.
"""

import ssl
from collections import defaultdict, deque
from collections.abc import Container, Sequence, Set
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from transfer import credentials as credentials_file
from transfer import receipts
from transfer.addresses import Address
from transfer.api import Go, Node
from transfer.client import GatewayClient
from transfer.errors import FascicleError, UnreachableError
from transfer.flow import Flow, open_flow
from transfer.groups import first_error_only
from transfer.protocol.messages import Check, Checked
from transfer.silence import serve_watch
from transfer.tls import client_context

PATIENCE_S: Final = 30.0
CHECK_OBJECTS: Final = 256
DEEP_OBJECTS: Final = 16  # so that an answer comes within seconds
UNDER_WAY: Final = 2
MISSING: Final = "missing"  # a problem: the node does not have what it is to hold
UNREADABLE: Final = "unreadable"  # its disk gave an error, so that it is not known whether the copy is sound


def run(*, credentials: Path, deep: bool = False, as_json: bool = False) -> int:
    """Check everything and return the exit code: 0 all replicas sound, 1 some are not.

    Raises:
        FascicleError: the gateway does not answer.
    """
    summary = trio.run(_Verify(deep=deep).run, credentials)
    if as_json:
        print(msgspec.json.encode(summary).decode())
    else:
        _print_summary(summary)
    return 1 if summary["lost_objects"] or summary["sound_replicas"] != summary["replicas"] else 0


class _Verify:
    def __init__(self, *, deep: bool) -> None:
        self._deep = deep
        self._named: dict[str, list[str]] = {}  # the nodes that are to hold it, by object
        self._sound: dict[str, int] = {}  # replicas found sound, by object
        self._problems: list[dict[str, str]] = []

    async def run(self, credentials: Path) -> dict[str, Any]:
        loaded = credentials_file.load(credentials)
        async with GatewayClient(loaded, patience_s=PATIENCE_S) as client:
            return await self.check(client, client_context(loaded))

    async def check(self, client: GatewayClient, context: ssl.SSLContext) -> dict[str, Any]:
        await self._look(client, context)
        # A copy may have been moved to another node since it was listed.
        if moved := {each["object"] for each in self._problems if each["problem"] == MISSING}:
            self._problems = [each for each in self._problems if each["object"] not in moved]
            for object_id in moved:
                del self._named[object_id], self._sound[object_id]
            await self._look(client, context, moved)
        return {
            "objects": len(self._sound),
            "replicas": sum(map(len, self._named.values())),
            "sound_replicas": sum(self._sound.values()),
            "lost_objects": sorted(object_id for object_id, sound in self._sound.items() if not sound),
            "deep": self._deep,
            "problems": self._problems,
        }

    async def _look(self, client: GatewayClient, context: ssl.SSLContext, these: Container[str] | None = None) -> None:
        """Check everything, or `these` objects, where the gateway lists them now."""
        wanted: dict[str, list[str]] = defaultdict(list)
        async for stored in client.iterate_objects():
            if these is None or stored.object_id in these:
                self._named[stored.object_id] = stored.node_ids
                self._sound[stored.object_id] = 0
                for node_id in stored.node_ids:
                    wanted[node_id].append(stored.object_id)
        await self._check_all(await client.open_read(["check"]), wanted, context)

    async def _check_all(self, go: Go, wanted: dict[str, list[str]], context: ssl.SSLContext) -> None:
        nodes = {node.node_id: node for node in go.nodes}
        async with trio.open_nursery() as nursery:
            for node_id, object_ids in wanted.items():
                if node_id in nodes:
                    nursery.start_soon(self._check_node, nodes[node_id], go, object_ids, context)
                else:
                    self._note(node_id, object_ids, "unreachable")

    async def _check_node(self, node: Node, go: Go, object_ids: Sequence[str], context: ssl.SSLContext) -> None:
        left = dict.fromkeys(object_ids)
        try:
            with first_error_only():
                address = Address(node.host, node.port)
                secured = context if node.tls else None
                async with open_flow(address, secured, go.ticket, node_id=node.node_id) as flow:
                    await self._converse(flow, node, left)
        except FascicleError as error:
            self._note(node.node_id, [*left], error.code)

    async def _converse(self, flow: Flow, node: Node, left: dict[str, None]) -> None:
        """Check `left`, taking out of it what has been answered."""
        size = DEEP_OBJECTS if self._deep else CHECK_OBJECTS
        places = trio.Semaphore(UNDER_WAY)
        under_way: deque[list[str]] = deque()  # answers come in the order asked

        async def ask() -> None:
            asked = list(left)
            for start in range(0, len(asked), size):
                await places.acquire()
                under_way.append(asked[start : start + size])
                await flow.ask(Check(list(map(bytes.fromhex, under_way[-1])), self._deep))
            for _ in range(UNDER_WAY):  # until all is answered: who has said BYE cannot ask for a sign of life
                await places.acquire()
            await flow.bye()

        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(node.public_key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(serve_watch, flow, lambda: bool(under_way))
            async for frame in flow.frames():
                if isinstance(frame, Checked) and under_way:
                    batch = dict.fromkeys(under_way.popleft())
                    silent = batch.keys() - self._take(node.node_id, frame, key, batch.keys())
                    self._note(node.node_id, sorted(silent), UNREADABLE)
                    for object_id in batch:
                        del left[object_id]
                    places.release()
            nursery.cancel_scope.cancel()  # nothing more is answered, so nothing more may be asked
        if left:
            raise UnreachableError(f"{node.node_id} closed the flow")

    def _take(self, node_id: str, checked: Checked, key: Ed25519PublicKey, left: Set[str]) -> set[str]:
        """Take an answer; return of which objects it speaks. What it says of others than `left` counts for nothing."""
        sound = {receipt.object_id.hex() for receipt in receipts.verify(checked.sound, key).receipts} & left
        for object_id in sound:
            self._sound[object_id] += 1
        missing = ({object_id.hex() for object_id in checked.missing} & left) - sound
        corrupt = ({object_id.hex() for object_id in checked.corrupt} & left) - sound - missing
        self._note(node_id, sorted(missing), MISSING)
        self._note(node_id, sorted(corrupt), "corrupt")
        return sound | missing | corrupt

    def _note(self, node_id: str, object_ids: Sequence[str], problem: str) -> None:
        self._problems += [{"object": object_id, "node": node_id, "problem": problem} for object_id in object_ids]


def _print_summary(summary: dict[str, Any]) -> None:
    how = "re-read and checked" if summary["deep"] else "present"
    print(
        f"{summary['objects']} objects, {summary['sound_replicas']} of {summary['replicas']} replicas {how}, "
        f"{len(summary['lost_objects'])} objects without a sound replica"
    )
    for problem in summary["problems"]:
        print(f"{problem['problem']}: {problem['object']} on {problem['node']}")
