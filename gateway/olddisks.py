"""Nodes whose disk is an older copy of itself, as one put back from a backup: not relied on until it was compared.

Such a disk has its id still and lacks what came in since, so what the catalogue names there may be gone. From the
notice on (`gateway.watch`) no new promise rests on it; what open transfers have there alone is durable no more; and
what the node signed for transfers of before counts once it signs that again (`gateway.disks`), for good. The rest ends
with a stocktake of the node that began when all this was written, and passed nothing over. It is kept in the catalogue,
so no restart of the gateway ends it. Refuses to do: noticing, comparing.
"""

from functools import partial

from gateway.database import Database
from gateway.disks import not_compared, note_compared
from gateway.liveness import Nodes
from gateway.receiving import take_old_disks


class OldDisks:
    """One object a gateway."""

    def __init__(self, database: Database, nodes: Nodes) -> None:
        self._database, self._nodes = database, nodes
        self.node_ids: frozenset[str] = frozenset()  # replaced as a whole: the catalogue's writer reads it, a thread
        self.notices = 0
        self._noticed: dict[str, int] = {}  # by which notice
        self._written: dict[str, int] = {}

    async def read(self) -> None:
        """Take in what was not compared when the gateway stopped.

        Raises:
            StorageError: the catalogue cannot be read.
        """
        self._written = dict.fromkeys(await self._database.read(not_compared), 0)
        self._noticed = self._written.copy()
        self.node_ids = frozenset(self._noticed)

    def notice(self, node_id: str) -> None:
        """Rely on this node no more, at once; `write` is to follow."""
        self.notices += 1
        self._noticed[node_id] = self.notices
        self.node_ids = frozenset(self._noticed)

    async def write(self) -> bool:
        """Write what was noticed since; tell whether anything was.

        Raises:
            FascicleError: the catalogue cannot be written; to be called again.
        """
        new = {node_id: notice for node_id, notice in self._noticed.items() if self._written.get(node_id) != notice}
        if new:
            counted = self._nodes.node_ids - self.node_ids
            await self._database.write(partial(take_old_disks, node_ids=sorted(new), counted=counted))
            self._written |= new
        return bool(new)

    def written(self, node_id: str) -> int | None:
        """Return the notice of the node that is in the catalogue; None: there is none."""
        return self._written.get(node_id)

    async def compared(self, node_id: str, notice: int | None) -> None:
        """Rely on the node again after a stocktake; not if that began before a notice, or `notice` is not the last.

        Raises:
            FascicleError: the catalogue cannot be written.
        """
        if notice is None or self._noticed[node_id] != notice:
            return
        await self._database.write(partial(note_compared, node_id=node_id))
        if self._noticed[node_id] == notice:  # what was noticed meanwhile is written behind this
            del self._noticed[node_id], self._written[node_id]
            self.node_ids = frozenset(self._noticed)
