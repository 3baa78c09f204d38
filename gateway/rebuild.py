"""`fascicle gateway rebuild`: makes the catalogue anew from the nodes, while they serve and the gateway does not.

The nodes are those of the gateway's configuration and those that were enrolled, found by their heartbeats; all must be
there, or the listing would say of the others' objects that there are none. Each lists what it holds in signed pages,
which are merged in the order of ids and written to a new database; it takes the catalogue's place when it is whole. A
folder that a node cannot list is left out only where that was asked for, and named.
Refuses to do: files (`gateway.replacement`), rows (`gateway.rebuilding`), deleting anything.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import catalogue_age, rebuilding, service
from gateway.audit import Audit, log_path
from gateway.database import Database
from gateway.heartbeats import Heartbeats
from gateway.liveness import Nodes
from gateway.merging import Round, merge
from gateway.metrics import Metrics
from gateway.register import Register
from gateway.repairlink import RepairLinks
from gateway.replacement import renewed
from gateway.settings import GatewaySettings
from gateway.signatures import NodeKeys
from gateway.unlisted import Unlisted
from transfer import log, pki, settings
from transfer.errors import FascicleError, SettingsError, StorageError, UnreachableError
from transfer.heartbeat import Heartbeat
from transfer.pages import Page

RETRY_S: Final = 1.0
NAMED_MAX: Final = 1000  # damaged objects that are named; all are counted
logger = log.get_logger()


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was asked for. `without` names nodes whose objects will be missing; `wait_s` for each answer.

    `without_unreadable`: what is in folders that a node cannot list then will be missing, too.
    """

    config: Path
    keep_aside: bool = False
    without: Sequence[str] = ()
    without_unreadable: bool = False
    wait_s: float = 60.0


class Progress(msgspec.Struct, frozen=True):
    """How far it is: objects written, and about how many copies there are to be read."""

    objects: int
    copies: int
    copies_expected: int


def rebuild(options: Options, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
    """Make the catalogue anew; return the summary.

    `lost` in it: objects of which no sound copy was listed; `unlisted`: folders of which is not known what they hold.

    Raises:
        SettingsError: configuration, a port in use, or a gateway that serves.
        ConflictError: there is a catalogue and it may not be set aside; a disk was replaced meanwhile.
        UnreachableError: a node is not there, or went away for longer than `wait_s`.
        StorageError: a disk failed, such as a node's that cannot list a folder, for longer than `wait_s`.
    """
    config = settings.load(GatewaySettings, options.config)
    enrolled, known = taking_part(config)
    unknown = sorted(set(options.without) - known)
    if unknown:
        raise SettingsError(f"--without {unknown[0]}: {options.config} names no such node, and none was enrolled")
    wanted = sorted(known - set(options.without))
    if not wanted:
        raise SettingsError(f"{options.config} names no node to ask, and none was enrolled")
    with service.locked(Path(config.data)), contextlib.closing(_audit(config)) as audit:
        with renewed(config.database, keep_aside=options.keep_aside) as path:
            found = asyncio.run(_Rebuild(config, options, wanted, enrolled, on_progress).run(path))
        without = sorted(options.without)
        facts = {"objects": found["objects"], "without": without, "unlisted": len(found["unlisted"])}
        asyncio.run(audit.note("catalogue_rebuilt", config.gateway_id, **facts))
    logger.info("catalogue_rebuilt", objects=found["objects"], replicas=found["replicas"], seconds=found["seconds"])
    return found


def taking_part(config: GatewaySettings) -> tuple[dict[str, str], set[str]]:
    """Return the keys of the enrolled nodes by name, and the names of all nodes: what revoked ones hold is not asked.

    Raises:
        SettingsError: the register cannot be read.
    """
    record = Register(Path(config.data) / "register.json").record
    enrolled = record.nodes()
    return enrolled, {entry.node_id for entry in config.node} - record.revoked.keys() | enrolled.keys()


def _audit(config: GatewaySettings) -> Audit:
    """Open the trail before anything is done: a catalogue that nobody can tell of is not put in place."""
    return Audit(Path(config.data), pki.load_signing_key(Path(config.identity)))


class _Rebuild:
    def __init__(
        self,
        config: GatewaySettings,
        options: Options,
        wanted: list[str],
        enrolled: dict[str, str],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._config, self._options, self._wanted = config, options, wanted
        self._on_progress = on_progress
        self._keys = NodeKeys(config.node)
        for node_id, public_key in enrolled.items():
            self._keys.add(node_id, public_key)
        self._nodes = Nodes(wanted, config.silent_after_s)
        self._copies = dict.fromkeys(wanted, 0)
        self._trouble: dict[str, list[tuple[str, bytes]]] = {"damaged": [], "unreadable": []}
        self._unlisted = {node_id: Unlisted() for node_id in wanted}
        self._objects = 0
        self._heard = asyncio.Event()

    async def run(self, path: Path) -> dict[str, Any]:
        began_s = time.monotonic()
        with contextlib.closing(Database(path)) as database:
            async with self._links(database) as links:
                await self._wait_nodes()
                async for found in merge(self._wanted, lambda node_id, after: self._ask(links, node_id, after)):
                    await self._take(database, found)
            lines = catalogue_age.line_count(log_path(Path(self._config.data)))
            totals = await database.write(lambda connection: rebuilding.finish(connection, self._wanted, lines))
            lost = await self._lost(database)
        return totals | {
            "copies": self._copies,
            "damaged": self._named("damaged"),
            "unreadable": self._named("unreadable"),
            "lost": lost,
            "unlisted": [
                {"node": node_id, "folder": folder}
                for node_id, passed in self._unlisted.items()
                for folder in passed.folders
            ],
            "without": sorted(self._options.without),
            "seconds": round(time.monotonic() - began_s, 3),
        }

    @contextlib.asynccontextmanager
    async def _links(self, database: Database) -> AsyncIterator[RepairLinks]:
        """Listen to heartbeats, and give the flows to whoever sends them."""
        links = service.repair_links(self._config, self._keys, Register(Path(self._config.data) / "register.json"))
        heartbeats = Heartbeats(self._nodes, self._keys, database, Metrics(), lambda _: self._heard.set())
        datagrams = await service.listen_heartbeats(self._config.heartbeat_listen, heartbeats)
        try:
            yield links
        finally:
            datagrams.close()
            links.close()
            await heartbeats.settle()

    async def _wait_nodes(self) -> None:
        try:
            async with asyncio.timeout(self._options.wait_s):
                while self._missing():
                    await self._heard.wait()
                    self._heard.clear()
        except TimeoutError as error:
            names = ", ".join(self._missing())
            raise UnreachableError(
                f"no heartbeat of {names} within {self._options.wait_s:.0f} s; start it, or leave its objects out of "
                "the catalogue with --without"
            ) from error

    def _missing(self) -> list[str]:
        live = {node.node_id for node in self._nodes.live(time.monotonic())}
        return [node_id for node_id in self._wanted if node_id not in live]

    async def _ask(self, links: RepairLinks, node_id: str, after: bytes) -> Page:
        """Ask until there is an answer; a node that is started again in between goes on where it was."""
        until_s = time.monotonic() + self._options.wait_s
        while True:
            try:
                return await links.list(self._node(node_id), after)
            except FascicleError as error:
                if isinstance(error, StorageError) and time.monotonic() > until_s:
                    return self._leave_out(node_id, after, error)
                if not error.retryable or time.monotonic() > until_s:
                    raise
                logger.warning("listing_waits", node_id=node_id, problem=error.code, reason=error.message)
            await asyncio.sleep(RETRY_S)

    def _leave_out(self, node_id: str, after: bytes, error: StorageError) -> Page:
        """Return a page of our own that says nothing of the folder that the node cannot list, where that is meant.

        Raises:
            StorageError: it is not, or there are too many.
        """
        if not self._options.without_unreadable:
            raise StorageError(
                f"{node_id}: {error.message}; mend that folder, or leave out what is in it with --without-unreadable"
            ) from error
        last = self._unlisted[node_id].pass_over(after, error)
        logger.error("folder_left_out", node_id=node_id, folder=self._unlisted[node_id].folders[-1], code=error.code)
        return Page(node_id, self._node(node_id).incarnation, b"", after, last, False, [], [], [])

    def _node(self, node_id: str) -> Heartbeat:
        beat = self._nodes.last(node_id)
        if beat is None:
            raise UnreachableError(f"{node_id} was never heard")
        return beat

    async def _take(self, database: Database, found: Round) -> None:
        replicas = self._config.default_replicas
        self._objects += await database.write(lambda connection: rebuilding.write_round(connection, found, replicas))
        for batch in found.batches:
            self._copies[batch.node_id] += len(batch.receipts)
        self._trouble["damaged"] += found.damaged
        self._trouble["unreadable"] += found.unreadable
        self._on_progress(Progress(self._objects, sum(self._copies.values()), self._expected()))

    def _expected(self) -> int:
        beats = map(self._nodes.last, self._wanted)
        return sum(beat.objects for beat in beats if beat is not None)

    async def _lost(self, database: Database) -> list[str]:
        told = [object_id for entries in self._trouble.values() for _, object_id in entries]
        lost = await database.read(lambda connection: rebuilding.missing_of(connection, told))
        return [object_id.hex() for object_id in lost]

    def _named(self, kind: str) -> list[dict[str, str]]:
        return [{"node": node_id, "object": object_id.hex()} for node_id, object_id in self._trouble[kind][:NAMED_MAX]]
