"""Which nodes live, which are gone, what is copied therefore: against a model. The nodes' clocks are set at will."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import gateway.liveness
import gateway.repairplan
import nodes.lives
from gateway.liveness import Nodes, candidate
from gateway.repairplan import Shortage, plan
from nodes.lives import next_life
from tests.faults.histories.mutants import Replaced, applied
from transfer.heartbeat import Heartbeat

IDS = ("node-1", "node-2", "node-3")
SILENT_S, GRACE_S = 15.0, 300.0
HOLDERS = frozenset({"node-1", "node-2"})  # of the one object, of which two replicas are wished
names = st.sampled_from(IDS)


class Cluster(RuleBasedStateMachine):
    """Heartbeats that come, are held back, are sent again, or begin anew; `now_s` is the gateway's own clock."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now_s = 1000.0
        self.nodes = Nodes(IDS, SILENT_S)
        self.nodes.gone(self.now_s, GRACE_S)
        self.wall_ns = dict.fromkeys(IDS, 1_800_000_000 * 10**9)
        self.lives = {name: self._start(name) for name in IDS}
        self.sequences = dict.fromkeys(IDS, 0)
        self.sent: list[Heartbeat] = []
        self.heard_s: dict[str, float] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def _start(self, name: str) -> int:
        return next_life(Path(self.folder.name) / name, self.wall_ns[name])

    @rule(name=names)
    def beat(self, name: str) -> None:
        self.sequences[name] += 1
        life, sequence = self.lives[name], self.sequences[name]
        sent = Heartbeat(name, f"disk of {name}", life, sequence, "host", 1, name, 1 << 30, 0, 0, 0)
        self.sent.append(sent)
        assert self.nodes.record(sent, self.now_s), "a node that lives was not heard"
        self.heard_s[name] = self.now_s

    @rule(data=st.data())
    def send_an_old_one_again(self, data: st.DataObject) -> None:
        if self.sent:
            assert not self.nodes.record(data.draw(st.sampled_from(self.sent)), self.now_s), "an old heartbeat counted"

    @rule(name=names, step_s=st.sampled_from([-86_400, -1, 0, 3, 86_400]))
    def restart_with_another_clock(self, name: str, step_s: int) -> None:
        self.wall_ns[name] += step_s * 10**9
        self.lives[name], self.sequences[name] = self._start(name), 0

    @rule(seconds=st.sampled_from([1.0, 10.0, 16.0, 200.0, 301.0, 316.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def a_node_is_live_while_it_is_heard_and_gone_after_the_grace_time(self) -> None:
        if not hasattr(self, "nodes"):
            return
        age_s = {name: self.now_s - self.heard_s.get(name, 1000.0) for name in IDS}
        live = {beat.node_id for beat in self.nodes.live(self.now_s)}
        assert live == {name for name in self.heard_s if age_s[name] <= SILENT_S}
        gone = self.nodes.gone(self.now_s, GRACE_S)
        assert gone == {name for name in IDS if age_s[name] >= GRACE_S + SILENT_S}
        self._copies_are_made_only_when_a_holder_is_gone(live, gone)

    def _copies_are_made_only_when_a_holder_is_gone(self, live: set[str], gone: set[str]) -> None:
        missing = 2 - len(HOLDERS - gone)
        short = [Shortage(b"x" * 32, 100, HOLDERS, missing)] if missing else []
        jobs = plan(short, [candidate(beat) for beat in self.nodes.live(self.now_s)]).jobs
        assert bool(jobs) == bool(gone & HOLDERS and live & HOLDERS and "node-3" in live)
        for job in jobs:
            assert job.source in live & HOLDERS and job.target == "node-3"


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

_gone = Nodes.gone
MUTANTS: dict[str, list[Replaced]] = {
    "grace time ignored": [(Nodes, "gone", lambda nodes, now_s, _: _gone(nodes, now_s, 0.0))],
    "old heartbeats count": [(gateway.liveness, "is_newer", lambda *_: True)],
    "silent nodes count as live": [(Nodes, "live", lambda nodes, _: [seen.beat for seen in nodes._seen.values()])],
    "lives are told apart by the clock alone": [(nodes.lives, "_last", lambda _: 0)],
    "copies are read from whoever held them": [
        (gateway.repairplan, "_sources", lambda short, _: sorted(short.holders))
    ],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_notices_a_mistake(mutant: str) -> None:
    brief = settings(TestCluster.settings, database=None, phases=[Phase.generate], max_examples=300, derandomize=True)
    with applied(MUTANTS[mutant]), pytest.raises(AssertionError):
        run_state_machine_as_test(Cluster, settings=brief)
