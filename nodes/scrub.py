"""The scrubber: re-reads everything that is stored here, again and again, slowly enough that nobody notices.

Each object is read from the disk itself and compared with the digest in its header; what differs goes to quarantine
(`nodes.store`), which the next heartbeats tell, and the gateway has it repaired from a replica. The place is kept in
`scrub`, so that a restart goes on from about there. What the disk will not read, object or folder, stays where it is
and is logged: it is not known to be wrong, and another attempt may get it; the rest is read. Refuses to do: repair,
deleting.
"""

import contextlib
import time
from itertools import islice
from typing import Final, Never

import msgspec
import trio

from nodes import scrubplace
from nodes.node import Node
from nodes.pages import ids_after
from nodes.scrubplace import SEEK_BYTES, Place
from nodes.streaming import blocks_of
from transfer import disk
from transfer.durable import write_file_durably
from transfer.errors import CorruptError, FascicleError, NotStoredError, StorageError
from transfer.log import get_logger
from transfer.protocol.messages import UNREADABLE

IDS_AT_ONCE: Final = 1000
SAVE_S: Final = 30.0
TROUBLE_S: Final = 60.0  # before the next attempt where the folder of all objects cannot be read
log = get_logger()


class Scrubber:
    """Reads at most `bytes_per_s`; passes begin at least `every_s` apart."""

    def __init__(self, node: Node, *, bytes_per_s: float, every_s: float) -> None:
        self._node = node
        self._bytes_per_s = bytes_per_s
        self._every_s = every_s
        self._path = node.store.folder / "scrub"
        self._due_s = 0.0
        self._saved_s = 0.0
        self.place = Place()

    async def serve(self) -> Never:
        """Scrub for ever."""
        self.place = await trio.to_thread.run_sync(self._load)
        while True:
            try:
                await self._turn()
            except FascicleError as error:
                log.error("scrub_waits", code=error.code, reason=error.message)
                await trio.sleep(TROUBLE_S)

    async def _turn(self) -> None:
        """Go on with the pass, or begin the next when it is time."""
        if self.place.done:
            await trio.sleep(scrubplace.rest_s(self.place, time.time(), self._every_s))
            self.place = scrubplace.begin(time.time())
        while ids := await trio.to_thread.run_sync(self._next_ids):
            for object_id in ids:
                self.place = await self._read(object_id)
                if trio.current_time() - self._saved_s > SAVE_S:
                    await self._save()
        self.place = scrubplace.end(self.place)
        await self._save()
        found = self.place
        log.info(
            "scrub_pass_done",
            objects=found.objects,
            bytes=found.bytes,
            damaged=found.damaged,
            unreadable=found.unreadable,
            seconds=round(time.time() - found.began_at_s, 1),
        )

    def _next_ids(self) -> list[str]:
        ids = ids_after(str(self._node.store.folder), self.place.after, _tell_unreadable)
        return list(islice(ids, IDS_AT_ONCE))

    async def _read(self, object_id: str) -> Place:
        """Read one object; return the place after it."""
        await self._pace(SEEK_BYTES)
        stored_bytes = 0
        try:
            reader = await trio.to_thread.run_sync(lambda: self._node.store.read(object_id, from_disk=True))
            with reader:
                async with contextlib.aclosing(blocks_of(reader)) as blocks:
                    async for block in blocks:
                        stored_bytes += len(block)
                        await self._pace(len(block))
        except NotStoredError:
            return scrubplace.gone(self.place, object_id)
        except CorruptError:
            return scrubplace.damaged(self.place, object_id)
        except StorageError as error:
            log.error("object_unreadable", object_id=object_id, reason=error.message)
            return scrubplace.unreadable(self.place, object_id)
        self._node.metrics.scrubbed(stored_bytes)
        return scrubplace.sound(self.place, object_id, stored_bytes)

    async def _pace(self, read_bytes: int) -> None:
        self._due_s = scrubplace.due_s(self._due_s, trio.current_time(), read_bytes, self._bytes_per_s)
        await trio.sleep_until(self._due_s)

    async def _save(self) -> None:
        """Keep the place; a disk that takes no more now is read all the same, and asked again later."""
        data = msgspec.json.encode(self.place)
        try:
            await trio.to_thread.run_sync(write_file_durably, self._path, data)
        except FascicleError as error:
            log.warning("scrub_place_not_kept", code=error.code, reason=error.message)
        self._saved_s = trio.current_time()

    def _load(self) -> Place:
        """Return where the last run was; one that cannot be told begins anew."""
        try:
            if not disk.exists(str(self._path)):
                return Place()
            return msgspec.json.decode(self._path.read_bytes(), type=Place)
        except (OSError, *UNREADABLE) as error:
            log.warning("scrub_begins_anew", reason=str(error))
            return Place()


def _tell_unreadable(error: StorageError) -> None:
    log.error("folder_unreadable", reason=error.message)
