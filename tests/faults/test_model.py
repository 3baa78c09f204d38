"""The store on the simulated disk against a set: Hypothesis looks for a short way to lose an object."""

from contextlib import ExitStack

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nodes.objectfile import Record
from nodes.store import Store
from tests.faults.histories.mutants import MUTANTS, applied
from tests.faults.histories.objects import ENCODINGS, OBJECTS, STORED
from tests.faults.histories.of_node import FOLDER
from tests.faults.histories.world import World, open_world
from transfer.encodings import get_encoding
from transfer.errors import CorruptError, FullError, NotStoredError, StorageError

names = st.sampled_from(sorted(OBJECTS)[:4])
FLUSHES = ("fdatasync", "fsync", "syncfs")


class SimulatedStore(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def open(self, seed: int) -> None:
        self.stack = ExitStack()
        self.world = World(seed)
        self.machine = self.world.machine
        self.stack.enter_context(open_world(self.world))
        self.acknowledged: set[str] = set()
        self.store = Store.open(FOLDER, 0)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @rule(group=st.lists(st.tuples(names, st.sampled_from(ENCODINGS)), min_size=1, max_size=3))
    def put(self, group) -> None:
        outcomes = self.store.commit([self._upload(name, encoding) for name, encoding in group])
        assert all(isinstance(outcome, Record) for outcome in outcomes)
        self.acknowledged |= {outcome.object_id for outcome in outcomes}

    @rule(group=st.lists(names, min_size=1, max_size=3))
    def put_while_flushes_fail(self, group) -> None:
        self.machine.flush_fault_ratio = 0.5
        outcomes = self.store.commit([self._upload(name, "raw") for name in group])
        self.machine.end_faults()
        assert all(isinstance(outcome, Record | StorageError | FullError) for outcome in outcomes)
        self.acknowledged |= {outcome.object_id for outcome in outcomes if isinstance(outcome, Record)}
        if self.machine.disk.read_only:
            self._start(power_cut=True)

    @rule(name=names, share=st.floats(0, 1))
    def put_in_parts(self, name: str, share: float) -> None:
        """Bring a resumable upload further, and to its end when `share` reaches it."""
        stored = STORED[name, "raw"]
        incoming = self.store.begin(name, len(OBJECTS[name]), "raw", resumable=True)
        assert incoming.offset_bytes <= len(stored)
        incoming.write(stored[incoming.offset_bytes : max(incoming.offset_bytes, int(share * len(stored)))])
        if incoming.stored_bytes < len(stored):
            incoming.abandon()
            return
        (outcome,) = self.store.commit([incoming])
        # what an earlier power cut left of the part may be anything: it is refused then, and begun anew
        assert isinstance(outcome, Record | CorruptError)
        self.acknowledged |= {name} if isinstance(outcome, Record) else set()

    @rule(name=names, calls=st.integers(1, 30), power_cut=st.booleans())
    def put_and_stop(self, name: str, calls: int, power_cut: bool) -> None:
        self.machine.stop_at = self.machine.calls + calls
        try:
            (outcome,) = self.store.commit([self._upload(name, "raw")])
        except BaseException as error:
            assert type(error).__name__ == "Stopped", error
        else:
            self.acknowledged |= {name} if isinstance(outcome, Record) else set()
        self._start(power_cut=power_cut)

    @rule(name=names)
    def ask(self, name: str) -> None:
        if self.store.contains(name) is not None:
            self.acknowledged.add(name)

    @precondition(lambda self: self.acknowledged)
    @rule(power_cut=st.booleans())
    def start_again(self, power_cut: bool) -> None:
        self._start(power_cut=power_cut)

    @invariant()
    def what_was_acknowledged_is_there_and_nothing_is_wrong(self) -> None:
        for name in OBJECTS if hasattr(self, "store") else ():
            try:
                with self.store.read(name) as reader:
                    stored, record = b"".join(reader), reader.record
            except NotStoredError:
                assert name not in self.acknowledged
            else:
                assert b"".join(get_encoding(record.encoding).decoder(record.size_bytes).feed(stored)) == OBJECTS[name]

    def _upload(self, name: str, encoding: str):
        incoming = self.store.begin(name, len(OBJECTS[name]), encoding)
        incoming.write(STORED[name, encoding])
        return incoming

    def _start(self, *, power_cut: bool) -> None:
        self.machine.stop()
        self.machine.start_again(power_cut=power_cut)
        try:
            self.store = Store.open(FOLDER, 0)
        except StorageError:  # a failure of before that nobody was told of is told once
            assert self.machine.faults > 0
            self.store = Store.open(FOLDER, 0)


TestSimulatedStore = SimulatedStore.TestCase
TestSimulatedStore.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("mutant", ["file data is not flushed", "names are not flushed"])
def test_the_model_notices_a_mistake(mutant: str) -> None:
    brief = settings(TestSimulatedStore.settings, database=None, phases=[Phase.generate])
    with applied(MUTANTS[mutant]), pytest.raises((AssertionError, CorruptError)):
        run_state_machine_as_test(SimulatedStore, settings=brief)
