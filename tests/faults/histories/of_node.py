"""Histories of a node's store: uploads in groups, alone and by parts, reads, rot, faults, and ends in mid-sentence.

One history is a few lives of a store in the same folder. Each life ends by a power cut or a kill, at a system call that
the seed names or when its senders are done; the next recovers, perhaps under faults and cut again. After the last,
and after some of the others, everything is judged with no faults: what was acknowledged is there, bit-exact, once.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio
from trio.testing import MockClock

from nodes.committer import Committer
from nodes.incoming import Incoming
from nodes.objectfile import HEADER_BYTES, Record
from nodes.opening import object_path
from nodes.store import Store
from tests.faults.histories.filesystem import File, walk
from tests.faults.histories.journal import Journal, require
from tests.faults.histories.objects import ENCODINGS, OBJECTS, STORED, changed, spoil
from tests.faults.histories.running import Stopped
from tests.faults.histories.world import HOME, MEMORY_BYTES, World
from transfer.buffers import Buffers
from transfer.encodings import get_encoding
from transfer.errors import BusyError, CorruptError, FascicleError, FullError, NotStoredError, StorageError

FOLDER = Path(HOME) / "node"
DAY_S = 86_400.0


_buffers = Buffers(64 << 10, HEADER_BYTES)


class NodeHistory:
    def __init__(self, world: World) -> None:
        self.world, self.machine, self.rng = world, world.machine, world.rng
        self.journal = Journal()
        self.names = self.rng.sample(sorted(OBJECTS), self.rng.randint(2, 6))
        self.tight = False  # the disk may be full
        self.incarnation = ""
        often, seldom = (self._groups, self._alone, self._ask), (self._part, self._read, self._wait)
        self.steps = (*often, *often, *seldom)

    def run(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self._live()
            self._end(power_cut=self.rng.random() < 0.6)
            if self.rng.random() < 0.3:
                self.verify()
        self._end(power_cut=True)
        self.verify()
        self._end(power_cut=True)
        self.verify()

    def _end(self, *, power_cut: bool) -> None:
        self.machine.stop()
        self.machine.end_faults()
        self.world.counts.clear()
        self.machine.start_again(power_cut=power_cut)
        self.machine.disk.room_bytes = 1 << 30
        self.tight = False
        self.world.note(f"START after a {'power cut' if power_cut else 'kill'}")
        self.journal.counts["power cuts" if power_cut else "kills"] += 1
        if self.rng.random() < 0.25:
            self._spoil()

    def _live(self) -> None:
        rng, machine = self.rng, self.machine
        machine.draw_faults()
        if rng.random() < 0.2:
            self.tight, machine.disk.room_bytes = True, rng.randint(0, 150_000)
        if rng.random() < 0.8:
            machine.stop_at = machine.calls + int(2 ** rng.uniform(3, 10))
        try:
            trio.run(self._work, clock=MockClock(autojump_threshold=0))
        except* Stopped:
            pass

    async def _work(self) -> None:
        if (store := await self._open()) is None:
            return
        committer = Committer(store)
        async with trio.open_nursery() as serving:
            serving.start_soon(committer.serve)
            async with trio.open_nursery() as senders:
                for _ in range(self.rng.randint(1, 3)):
                    senders.start_soon(self._send, store, committer)
            serving.cancel_scope.cancel()

    async def _open(self) -> Store | None:
        """Open the store, as often as a supervisor would try."""
        for _ in range(4):
            try:
                return self._known(await trio.to_thread.run_sync(Store.open, FOLDER, 0))
            except FascicleError as error:
                self._excused(error)
        return None

    async def _send(self, store: Store, committer: Committer) -> None:
        for _ in range(self.rng.randint(1, 4)):
            step = self.rng.choice(self.steps)
            await step(store, committer)
            if self.world.counts and self.rng.random() < 0.3:
                await trio.to_thread.run_sync(self.world.counts.pop())

    def _excused(self, error: FascicleError) -> None:
        """A step may fail only where something failed under it."""
        require(
            isinstance(error, StorageError | FullError) and (self.machine.faults > 0 or self.tight),
            f"failed for no reason: {error!r}",
        )

    # Steps.

    async def _groups(self, store: Store, _: Committer) -> None:
        """Uploads in one to three groups; one commit makes a group durable while others are at theirs."""
        groups = []
        for _ in range(self.rng.choice((1, 2, 3))):
            uploads = [await self._upload(store) for _ in range(self.rng.randint(1, 3))]
            groups.append([each for each in uploads if each is not None])
        async with trio.open_nursery() as workers:
            for group in groups:
                workers.start_soon(self._commit, store, group)

    async def _commit(self, store: Store, group: list[tuple[Incoming, bool]]) -> None:
        outcomes = await trio.to_thread.run_sync(store.commit, [incoming for incoming, _ in group])
        for (incoming, wrong), outcome in zip(group, outcomes, strict=True):
            self._judge(incoming, wrong, outcome)

    async def _alone(self, store: Store, committer: Committer) -> None:
        """An upload that the committer puts into a group with those of others."""
        if (upload := await self._upload(store)) is not None:
            try:
                outcome: Record | FascicleError = await committer.commit(upload[0])
            except FascicleError as error:
                outcome = error
            self._judge(*upload, outcome)

    async def _part(self, store: Store, _: Committer) -> None:
        """A resumable upload whose sender goes away."""
        if (upload := await self._upload(store, resumable=True, whole=False)) is not None:
            await self._abandon(upload[0])

    async def _read(self, store: Store, _: Committer) -> None:
        await trio.to_thread.run_sync(self._check, store, self._pick())

    async def _ask(self, store: Store, _: Committer) -> None:
        """Whether an object is there: a yes is answered with a receipt, so it is an acknowledgement."""
        name = self._pick()
        expected, found = self.journal.must_be_there(name), self.journal.found[name]
        self.world.note(f"CONTAINS {name[:8]}")
        try:
            record = await trio.to_thread.run_sync(store.contains, name)
        except FascicleError as error:
            self._excused(error)
            return
        require(record is not None or not expected, f"{name[:8]} was acknowledged, and is denied")
        if record is not None and found == self.journal.found[name]:  # else a reader found it rotten meanwhile
            self._acknowledge(name, record, checked=False)

    async def _wait(self, *_: object) -> None:
        await trio.sleep(self.rng.choice((0.001, 0.02, 1.0)))
        self.machine.now_s += self.rng.choice((1.0, DAY_S, 8 * DAY_S))

    async def _upload(
        self, store: Store, *, resumable: bool | None = None, whole: bool = True
    ) -> tuple[Incoming, bool] | None:
        """Send an object, perhaps not right; None when it was refused."""
        rng, name = self.rng, self._pick()
        encoding, wrong = rng.choice(ENCODINGS), rng.random() < 0.15
        resumable = rng.random() < 0.3 if resumable is None else resumable
        stored = changed(STORED[name, encoding], rng) if wrong else STORED[name, encoding]
        self.world.note(f"UPLOAD {name[:8]} {encoding} {resumable=} {wrong=} {whole=}")
        begin: Callable[[], Incoming] = partial(store.begin, name, len(OBJECTS[name]), encoding, resumable=resumable)
        try:
            incoming = await trio.to_thread.run_sync(begin)
        except BusyError:
            require(resumable, "busy, though not resumable")
            return None
        except FascicleError as error:
            self._excused(error)
            return None
        rest = stored[incoming.offset_bytes :]
        try:
            await self._write(incoming, rest if whole else rest[: rng.randint(0, len(rest))])
        except FascicleError as error:
            if not (isinstance(error, CorruptError) and (wrong or incoming.offset_bytes)):
                self._excused(error)
            await self._abandon(incoming)
            return None
        return incoming, wrong

    async def _write(self, incoming: Incoming, stored: bytes) -> None:
        if self.rng.random() < 0.3:
            view = _buffers.take(len(stored))
            view[:] = stored
            pieces = [view]
        else:
            length = self.rng.choice((1000, 5000, MEMORY_BYTES))
            pieces = [memoryview(stored[at : at + length]) for at in range(0, len(stored), length)]
        for piece in pieces:
            await trio.to_thread.run_sync(incoming.write, piece)

    async def _abandon(self, incoming: Incoming) -> None:
        try:
            await trio.to_thread.run_sync(incoming.abandon)
        except FascicleError as error:
            self._excused(error)

    def _pick(self) -> str:
        """Draw an object; what is spoiled should be come across before it is judged."""
        among = sorted(self.journal.spoiled & set(self.names)) if self.rng.random() < 0.4 else []
        return self.rng.choice(among or self.names)

    # Judging.

    def _judge(self, incoming: Incoming, wrong: bool, outcome: Record | FascicleError) -> None:
        name = incoming.object_id
        self.world.note(f"ANSWER {name[:8]} {type(outcome).__name__}")
        self.journal.counts["uploads"] += 1
        if isinstance(outcome, Record):
            if incoming.encoding == "raw" and incoming.offset_bytes == 0:  # else the change may change nothing
                require(not wrong, f"wrong bytes for {name[:8]} were acknowledged")
            self._acknowledge(name, outcome, checked=True)
        elif not (
            isinstance(outcome, CorruptError) and (wrong or incoming.offset_bytes or self.journal.counts["spoiled"])
        ):
            self._excused(outcome)

    def _acknowledge(self, name: str, record: Record, *, checked: bool) -> None:
        require((record.object_id, record.size_bytes) == (name, len(OBJECTS[name])), f"{name[:8]}: another's record")
        self.journal.acknowledge(name, checked=checked)

    def _check(self, store: Store, name: str) -> bool:
        """Read an object and compare; tells whether it was there."""
        expected = self.journal.must_be_there(name)
        self.world.note(f"READ {name[:8]}")
        try:
            with store.read(name) as reader:
                stored, record = b"".join(reader), reader.record
        except NotStoredError:
            require(not expected, f"{name[:8]} was acknowledged, and is gone")
            return False
        except CorruptError:
            require(not expected, f"{name[:8]} was acknowledged, and is corrupt")
            if name in self.journal.spoiled:
                self.journal.forget(name)
            return False
        except FascicleError as error:
            self._excused(error)
            return False
        decoder = get_encoding(record.encoding).decoder(record.size_bytes)
        require(b"".join(decoder.feed(stored)) == OBJECTS[name], f"{name[:8]}: wrong bytes were given out")
        return True

    def verify(self) -> None:
        """Judge everything, with no faults."""
        self.world.note("VERIFY")
        store = self._recover()
        there = {name for name in self.names if self._check(store, name)}
        expected = [object_path(FOLDER, name) for name in sorted(there)]
        require([path for path, _ in self._objects()] == expected, "other files than each object once, in its place")
        for count in self.world.counts:
            count()
        require(store.statistics().objects == len(there), "the census counts wrong")
        name = self.rng.choice(self.names)
        incoming = store.begin(name, len(OBJECTS[name]), "raw")
        incoming.write(STORED[name, "raw"])
        (outcome,) = store.commit([incoming])
        self._judge(incoming, False, outcome)
        store.close()

    def _recover(self) -> Store:
        """Open the store; a failure of the last life that nobody was told of may be told once."""
        try:
            return self._known(Store.open(FOLDER, 0))
        except FascicleError as error:
            self._excused(error)
            return self._known(Store.open(FOLDER, 0))

    def _known(self, store: Store) -> Store:
        """Receipts name the disk's incarnation: it never changes by itself."""
        self.incarnation = self.incarnation or store.incarnation
        require(store.incarnation == self.incarnation, "the disk's incarnation changed")
        return store

    def _objects(self) -> list[tuple[str, File]]:
        return [(path, file) for path, file in walk(self.machine.disk.root) if path.startswith(f"{FOLDER}/objects/")]

    def _spoil(self) -> None:
        """Damage a stored file on the disk."""
        if not (files := self._objects()):
            return
        path, file = self.rng.choice(files)
        self.world.note(f"SPOIL {path[-64:][:8]}")
        self.journal.spoil(path[-64:])
        spoil(file, self.rng.choice(files)[1], self.rng)
