"""The ledger of one transfer: every object from its inspection to its end, and what became of every file.

Knows what is still to go (`work`), what is in memory (`budget`), what is settled, and whether anything has moved
lately. Refuses to do: talking to the gateway or to nodes.
"""

from typing import Final

import trio

from transfer import inspection
from transfer.errors import CorruptError, FascicleError, UnusableFileError
from transfer.inspection import SourceFile
from transfer.outcomes import Counters, Outcome
from transfer.refusals import Fate, judge
from transfer.work import Budget, Encoded, Item, Work

BODIES_BYTES_MAX: Final = 64 << 20
FIRST_BYTES_MAX: Final = 8 << 20  # until the transfer is open: more would take processors from the handshakes before
BUSY_PATIENCE: Final = 10.0  # times as long, for nodes that say when to come back


class Ledger:
    """What one transfer has to do and has done.

    `patience_s`: how long nothing at all may move; `outcomes`: where it is noted what became of every file.
    """

    def __init__(self, counters: Counters, patience_s: float, outcomes: list[Outcome] | None = None) -> None:
        self.counters = counters
        self.work = Work()
        self.budget = Budget(BODIES_BYTES_MAX, first_bytes=FIRST_BYTES_MAX)
        self.outcomes: list[Outcome] = [] if outcomes is None else outcomes
        self.nodes: set[str] = set()  # where objects can go
        self.encodes = False  # whether objects wait for an encoder before they may go
        self.total_bytes: int | None = None  # of all files, when known beforehand
        self._items: dict[str, Item] = {}  # wanted, until they are settled
        self._settled: dict[str, FascicleError | None] = {}  # None: durable
        self._patience_s = patience_s
        self._moved_s = self._went_on_s = trio.current_time()

    @property
    def patient(self) -> bool:
        """Whether something has moved within the patience."""
        return trio.current_time() - self._moved_s < self._patience_s

    @property
    def remaining_bytes(self) -> int | None:
        """How much is still to go at most, None when that is not known."""
        return None if self.total_bytes is None else max(0, self.total_bytes - self.counters.bytes)

    def moved(self) -> None:
        """Note that something moves, so that patience begins anew."""
        self._moved_s = self._went_on_s = trio.current_time()

    def told_to_wait(self) -> None:
        """Note that a node said when to come back: patience begins anew, but not for ever."""
        if trio.current_time() - self._went_on_s < self._patience_s * BUSY_PATIENCE:
            self._moved_s = trio.current_time()

    def durable_ids(self) -> list[str]:
        """Return the ids of what is durable now, or was before."""
        return [object_id for object_id, error in self._settled.items() if error is None]

    def take_answer(self, item: Item, *, stored: bool) -> None:
        """Take the gateway's word on an offered object: stored already, or to be sent.

        One that failed before, under another name, is taken anew: its file may have been the reason. The gateway counts
        what it calls stored as part of the transfer, and so must the claim at its end.
        """
        object_id = item.object_id
        if (twin := self._items.get(object_id)) is not None:  # the same bytes under another name, still on their way
            twin.sources.extend(item.sources)
            self.release(item)
        elif stored or (object_id in self._settled and self._settled[object_id] is None):
            self.release(item)
            self._settled[object_id] = None
            self._report(item, None, skipped=True)
        else:
            self._items[object_id] = item
            self.work.add(item, plain=self.encodes and item.body is not None)

    def durable(self, item: Item, node_id: str) -> None:
        """Settle an object that is durable on all its replicas."""
        self.counters.node_bytes[node_id] = self.counters.node_bytes.get(node_id, 0) + item.size_bytes
        self.counters.objects += 1
        self.counters.bytes += item.size_bytes
        self._settle(item, None)

    def unusable(self, item: Item, error: UnusableFileError) -> None:
        """Note that the file which an object was read from is no longer it; the next one that is goes in its place."""
        if len(item.sources) > 1:
            self.fail_source(item.sources.pop(0), error)
            self.work.give_back(item)
        else:
            self._settle(item, error)

    def refused(self, item: Item, node_id: str, error: FascicleError) -> Fate:
        """Decide about an object that a node refused, and carry it out but for a pause."""
        item.damaged_count += isinstance(error, CorruptError)
        fate = judge(item, error, nodes=self.nodes, node_id=node_id, patient=self.patient)
        if fate is Fate.FAIL:
            self._settle(item, error)
            return fate
        if fate is Fate.ELSEWHERE:
            item.refused_by[node_id] = error
        item.raw_only = item.raw_only or fate is Fate.AGAIN
        if fate is not Fate.LATER:
            self.work.give_back(item)
        return fate

    def fail_refused(self, node_ids: set[str]) -> None:
        """Settle what all of these nodes have refused; they are those that are left."""
        for item in self.work.take_refused(node_ids):
            self._settle(item, list(item.refused_by.values())[-1])

    def release(self, item: Item) -> None:
        """Let go of an object's bytes; they are read again if they must go again."""
        if item.body is not None:
            self.budget.give_back(len(item.body))
            item.body = None
        if item.encoded is not None:
            self.budget.give_back(memoryview(item.encoded.stored).nbytes)
            item.encoded = None

    def encoded(self, item: Item, encoded: Encoded | None) -> None:
        """Put an object's stored form in place of its bytes, None: it goes as it is."""
        if encoded is not None and item.body is not None:
            self.budget.give_back(len(item.body) - memoryview(encoded.stored).nbytes)
            item.body, item.encoded, item.chosen = None, encoded, (encoded.kind, encoded.encoding)
        self.work.add_ready(item)

    async def reload(self, item: Item) -> bytes:
        """Read a small object's bytes again.

        Raises:
            UnusableFileError: the file is not what it was.
        """
        source = item.sources[0]
        # One a flow at most. To wait here could be for ever: what fills the budget leaves by the flows that wait.
        self.budget.take_over_limit(item.size_bytes)
        try:
            item.body = await trio.to_thread.run_sync(inspection.read_again, source.path, item.object_id)
        except BaseException:
            self.budget.give_back(item.size_bytes)
            raise
        return item.body

    def fail_source(self, source: SourceFile, error: FascicleError) -> None:
        """Note that a file does not go."""
        outcome = Outcome(source, error=error)
        self.counters.failed += not outcome.ignored
        self.outcomes.append(outcome)

    def _settle(self, item: Item, error: FascicleError | None) -> None:
        self.moved()
        del self._items[item.object_id]
        self.release(item)
        self._settled[item.object_id] = error
        self._report(item, error, skipped=False)
        self.work.settle()

    def _report(self, item: Item, error: FascicleError | None, *, skipped: bool) -> None:
        for number, source in enumerate(item.sources):
            if error is not None:
                self.fail_source(source, error)
                continue
            twin = skipped or number > 0
            self.counters.skipped += twin
            self.outcomes.append(Outcome(source, item.object_id, skipped=twin))
