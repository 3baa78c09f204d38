"""The store against a dictionary: whatever is done, an object reads back as committed, or not at all."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from nodes.objectfile import Record
from nodes.store import Store
from tests.store.objects import noise, pieces
from transfer.encodings import get_encoding
from transfer.errors import BusyError, CorruptError, NotStoredError
from transfer.objects import object_id

LENGTHS = [0, 1, 5000, 70_000, (1 << 20) + 5]
OBJECTS = {object_id(noise(length, seed)): noise(length, seed) for seed, length in enumerate(LENGTHS)}
names = st.sampled_from(sorted(OBJECTS))
encodings = st.sampled_from(["raw", "zstd"])


class StoreMachine(RuleBasedStateMachine):
    uploads = Bundle("uploads")

    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name), 0)
        self.model: dict[str, str] = {}
        self.damaged: set[str] = set()
        self.writers: set[str] = set()
        self.generation = 0

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @rule(target=uploads, name=names, encoding=encodings, wrong=st.booleans(), resumable=st.booleans())
    def begin(self, name, encoding, wrong, resumable):
        data = OBJECTS[name]
        stored = bytes(get_encoding(encoding).encode(data if not wrong else bytes(len(data)) or b"x"))
        try:
            incoming = self.store.begin(name, len(data), encoding, resumable=resumable)
        except BusyError:
            assert name in self.writers
            return multiple()
        assert not resumable or name not in self.writers
        if resumable:
            self.writers.add(name)
            wrong = wrong or incoming.offset_bytes > 0  # others may have left wrong bytes: either outcome is right
            stored = stored[incoming.offset_bytes :]
        maybe = resumable and incoming.offset_bytes > 0
        return (self.generation, incoming, encoding, wrong, maybe, pieces(stored, 300_000))

    @rule(group=st.lists(consumes(uploads), max_size=4))
    def commit(self, group):
        group = [each for each in group if each[0] == self.generation]
        for _, incoming, _, _, _, parts in group:
            for part in parts:
                try:
                    incoming.write(part)
                except CorruptError:
                    assert incoming.stored_bytes >= 0
        outcomes = self.store.commit([incoming for _, incoming, *_ in group])
        for (_, incoming, encoding, wrong, maybe, _), outcome in zip(group, outcomes, strict=True):
            self.writers -= {incoming.object_id} if incoming._path.endswith(".partial") else set()
            if isinstance(outcome, Record):
                assert maybe or not wrong
                kept = self.model.setdefault(incoming.object_id, encoding)
                assert (outcome.object_id, outcome.encoding) == (incoming.object_id, kept)
            else:
                assert wrong and isinstance(outcome, CorruptError)

    @rule(upload=consumes(uploads))
    def abandon(self, upload):
        generation, incoming, *_, parts = upload
        if generation == self.generation:
            for part in parts[:1]:
                incoming.write(part)
            incoming.abandon()
            self.writers -= {incoming.object_id} if incoming._path.endswith(".partial") else set()

    @rule(name=names)
    def read(self, name):
        try:
            with self.store.read(name) as reader:
                stored = b"".join(reader)
        except NotStoredError:
            assert name not in self.model
        except CorruptError:
            assert name in self.damaged
            self.damaged.remove(name)
            del self.model[name]
        else:
            assert name in self.model and name not in self.damaged
            decoder = get_encoding(self.model[name]).decoder(len(OBJECTS[name]))
            assert b"".join(decoder.feed(stored)) == OBJECTS[name]

    @rule(name=names, data=st.data())
    def damage(self, name, data):
        path = self.store.folder / "objects" / name[:2] / name[2:4] / name
        if name in self.model and path.stat().st_size > 2048:
            octets = bytearray(path.read_bytes())
            octets[data.draw(st.integers(2048, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            before = path.read_bytes()
            if name not in self.damaged:
                assert bytes(octets) != before
                path.write_bytes(octets)
                self.damaged.add(name)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = Store.open(Path(self.folder.name), 0)
        self.writers.clear()
        self.generation += 1

    @invariant()
    def contains_what_was_committed(self):
        if hasattr(self, "store"):
            found = {name: record.encoding for name in OBJECTS if (record := self.store.contains(name))}
            assert found == self.model
            assert self.store.wait_counted(60)
            assert self.store.statistics().objects == len(self.model)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
