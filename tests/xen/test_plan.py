"""Plans, as a pure function: from every state exactly as many as are wanted, nothing lost, and short by how much."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xen.imagined import Imagined, hosts, wanted
from transfer.errors import FullError, SettingsError
from xen.actions import Await, Begin, Configure, Destroy, DestroyDisk, Leave, Make, Plan, Retire, Start
from xen.cloud import Node
from xen.observed import GIB, Disk, Host, Machine, Power, Stage
from xen.plan import make_plan
from xen.wanted import Wanted, number_of


def until_as(state: Imagined, wish: Wanted, rounds: int = 6, **more: bool) -> int:
    """Plan and carry out until the plan is empty; return after how many rounds."""
    for count in range(rounds):
        plan = make_plan(wish, state.pool(), state.nodes, **more)
        if not plan.actions:
            return count
        for _ in state.carry_out(plan):
            pass
    raise AssertionError(plan.lines())


def brought_up(count: int, host_count: int = 3) -> Imagined:
    state = Imagined(hosts=hosts(host_count))
    until_as(state, wanted(count=count))
    return state


def kinds(plan: Plan) -> list[str]:
    return [type(each).__name__ for each in plan.actions]


def test_a_bare_pool() -> None:
    state = Imagined()
    plan = make_plan(wanted(count=2), state.pool(), {})
    assert kinds(plan) == ["Make", "Configure", "Begin", "Await"] * 2
    assert [each.name for each in plan.actions if isinstance(each, Make)] == ["node-01", "node-02"]
    assert plan.lines()[0] == "1. make node-01"
    assert until_as(state, wanted(count=2)) == 1


def test_the_paper_s_thirty_are_spread_evenly() -> None:
    state = brought_up(30, host_count=4)
    assert len(state.serving()) == 30
    assert sorted(Counter(each.host_id for each in state.machines.values()).values()) == [7, 7, 8, 8]


def test_as_wanted_nothing_is_to_be_done() -> None:
    state = brought_up(5)
    assert make_plan(wanted(count=5), state.pool(), state.nodes) == Plan()


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    host_count=st.integers(1, 4),
)
def test_cut_off_anywhere_it_goes_on_to_exactly_as_many(counts: list[int], cuts: list[int], host_count: int) -> None:
    state = Imagined(hosts=hosts(host_count))
    pending = list(cuts)
    for count in counts:
        wish = wanted(count=count)
        while pending:  # each of these runs is killed after so many small steps
            left = pending.pop()
            for _ in state.carry_out(make_plan(wish, state.pool(), state.nodes)):
                if left == 0:
                    break
                left -= 1
            else:
                break
            made = Counter(each.name for each in state.machines.values())
            assert not made or made.most_common(1)[0][1] == 1
        until_as(state, wish)
        assert len(state.machines) == len(state.serving()) == count
        assert sorted(state.nodes) == state.serving()
        assert state.disks == []
        assert make_plan(wish, state.pool(), state.nodes) == Plan()
        on = Counter(each.host_id for each in state.machines.values())
        if len(counts) == 1:
            assert not on or max(on.values()) - min(on[host.host_id] for host in state.hosts) <= 1


STAGES = st.sampled_from(list(Stage))
MACHINES = st.lists(
    st.tuples(st.integers(1, 9), STAGES, st.sampled_from(list(Power)), st.sampled_from(["", "h1", "h2", "h3"])),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(machines=MACHINES, count=st.integers(0, 6), needed=st.dictionaries(st.integers(1, 9), st.integers(0, 3)))
def test_from_any_state_nothing_that_is_needed_is_removed(
    machines: list[tuple[int, Stage, Power, str]], count: int, needed: dict[int, int]
) -> None:
    """Also from states that should not come to be, doubles among them; `Imagined.destroy` checks each removal."""
    state = Imagined()
    for index, (number, stage, power, host) in enumerate(machines):
        early = stage in (Stage.RAW, Stage.CLONED, Stage.CONFIGURED)
        state.machines[f"x{index}"] = Machine(
            name=f"node-{number:02}",
            number=number,
            machine_id=f"x{index}",
            stage=stage,
            power=Power.HALTED if early or power == Power.UNKNOWN else power,
            host_id=host or "h1",
            storage_id="s1",
            memory_bytes=GIB,
            disk_bytes=3 * GIB,
        )
        if stage in (Stage.SERVING, Stage.LEAVING):
            state.nodes[f"node-{number:02}"] = Node(name=f"node-{number:02}", state="silent", silent_s=5.0)
    for number, objects in needed.items():
        name = f"node-{number:02}"
        if name in state.nodes:
            state.nodes[name] = msgspec.structs.replace(state.nodes[name], needed_objects=objects)
    plan = make_plan(wanted(count=count), state.pool(), state.nodes)
    for action in plan.actions:
        if isinstance(action, Destroy):
            gone = state.machines[action.machine_id]
            doubled = [each for each in state.machines.values() if each.name == gone.name]
            never_served = gone.stage not in (Stage.SERVING, Stage.LEAVING)
            assert never_served or len(doubled) > 1
            assert never_served, gone


# Fewer


def test_the_last_ones_of_the_fullest_host_leave_by_drain() -> None:
    state = brought_up(7)  # 3 on h1, 2 on the others
    plan = make_plan(wanted(count=5), state.pool(), state.nodes)
    assert kinds(plan) == ["Leave", "Leave", "Retire", "Retire"]
    assert [each.name for each in plan.actions[:2]] == ["node-07", "node-06"]
    until_as(state, wanted(count=5))
    assert state.serving() == [f"node-{number:02}" for number in range(1, 6)]


def test_what_never_ran_is_removed_first_and_without_drain() -> None:
    state = brought_up(3)
    for _ in zip(range(4), state.carry_out(make_plan(wanted(count=4), state.pool(), state.nodes)), strict=False):
        pass
    assert state.one("node-04").stage == Stage.CONFIGURED
    plan = make_plan(wanted(count=3), state.pool(), state.nodes)
    assert kinds(plan) == ["Destroy"]
    assert plan.actions[0].name == "node-04"


def test_a_drain_that_was_begun_goes_on_though_more_are_wanted_again() -> None:
    state = brought_up(3)
    plan = make_plan(wanted(count=2), state.pool(), state.nodes)
    next(state.carry_out(plan))
    plan = make_plan(wanted(count=3), state.pool(), state.nodes)
    assert kinds(plan) == ["Make", "Configure", "Begin", "Await", "Leave", "Retire"]
    until_as(state, wanted(count=3))
    assert len(state.serving()) == 3


def test_a_halted_node_that_leaves_is_started_when_it_is_needed() -> None:
    state = brought_up(3)
    state.change("node-03", stage=Stage.LEAVING, power=Power.HALTED)
    state.nodes["node-03"] = Node(name="node-03", state="silent", silent_s=9.0, draining=True, needed_objects=4)
    plan = make_plan(wanted(count=2), state.pool(), state.nodes)
    assert kinds(plan) == ["Start", "Retire"]
    until_as(state, wanted(count=2))
    assert state.serving() == ["node-01", "node-02"]


# What is gone


def test_a_dead_host_s_nodes_are_replaced_after_the_grace_time_and_not_before() -> None:
    state = brought_up(6)
    state.kill_host("h2", silent_s=599.0)
    early = make_plan(wanted(count=6), state.pool(), state.nodes)
    assert early.actions == ()
    assert early.notes == tuple(
        f"{each.name} is out of reach; it is replaced after 600 s"
        for each in state.machines.values()
        if each.host_id == "h2"
    )
    state.kill_host("h2", silent_s=600.0)
    late = make_plan(wanted(count=6), state.pool(), state.nodes)
    assert kinds(late) == ["Make", "Configure", "Begin", "Await"] * 2 + ["Leave", "Leave"]
    assert {each.host_ids[0] for each in late.actions if isinstance(each, Begin)} == {"h1", "h3"}
    until_as(state, wanted(count=6))
    assert len(state.serving()) == 6
    lost = [each for each in state.machines.values() if each.host_id == "h2"]
    assert [each.stage for each in lost] == [Stage.LEAVING] * 2
    assert state.destroyed == []


def test_a_host_that_comes_back_gives_its_nodes_up_only_when_they_are_not_needed() -> None:
    state = brought_up(6)
    state.kill_host("h2", silent_s=700.0)
    until_as(state, wanted(count=6))
    state.hosts = tuple(msgspec.structs.replace(each, alive=True) for each in state.hosts)
    names = [each.name for each in state.machines.values() if each.host_id == "h2"]
    for name in names:
        state.nodes[name] = msgspec.structs.replace(state.nodes[name], needed_objects=1)
    plan = make_plan(wanted(count=6), state.pool(), state.nodes)
    assert kinds(plan) == ["Retire", "Retire"]
    for _ in state.carry_out(plan):
        pass
    assert sorted(each.name for each in state.machines.values()) == sorted([*state.serving(), *names])  # not heard yet
    for name in names:
        state.hear(name)
    until_as(state, wanted(count=6))
    assert [each.name for each in state.destroyed] == sorted(names)
    assert len(state.serving()) == 6


def test_a_node_that_serves_though_its_host_is_not_seen_is_left_alone() -> None:
    state = brought_up(3)
    state.kill_host("h2", silent_s=0.0)
    name = next(each.name for each in state.machines.values() if each.host_id == "h2")
    state.hear(name)
    plan = make_plan(wanted(count=3), state.pool(), state.nodes)
    assert plan.actions == ()
    assert plan.notes == (f"{name} serves, though the pool cannot reach its host",)


def test_a_silent_node_in_a_machine_that_runs_is_not_replaced() -> None:
    state = brought_up(3)
    state.nodes["node-02"] = Node(name="node-02", state="silent", silent_s=1e6)
    plan = make_plan(wanted(count=3), state.pool(), state.nodes)
    assert plan.actions == ()
    assert plan.notes == ("node-02 runs, but its node is silent at the gateway; look at it",)


@pytest.mark.parametrize(("power", "host"), [(Power.HALTED, "h2"), (Power.PAUSED, "h2"), (Power.SUSPENDED, "")])
def test_a_machine_that_stopped_is_started_again(power: Power, host: str) -> None:
    state = brought_up(3)
    state.change("node-02", power=power, host_id=host)
    plan = make_plan(wanted(count=3), state.pool(), state.nodes)
    assert [type(each) for each in plan.actions] == [Start, Await]
    assert until_as(state, wanted(count=3)) == 1


def test_a_machine_that_was_removed_by_hand_is_made_again() -> None:
    state = brought_up(3)
    del state.machines[state.one("node-02").machine_id]
    until_as(state, wanted(count=3))
    assert state.serving() == ["node-01", "node-02", "node-03"]


# Half made


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (Stage.RAW, ["Destroy", "Make", "Configure", "Begin", "Await"]),
        (Stage.CLONED, ["Configure", "Begin", "Await"]),
        (Stage.CONFIGURED, ["Begin", "Await"]),
        (Stage.BEGUN, ["Begin", "Await"]),
        (Stage.SERVING, ["Start", "Await"]),
        (Stage.LEAVING, ["Make", "Configure", "Begin", "Await", "Retire"]),
        (Stage.CONDEMNED, ["Destroy", "Make", "Configure", "Begin", "Await"]),
    ],
)
def test_a_halted_machine_of_each_stage_is_finished_or_removed(stage: Stage, expected: list[str]) -> None:
    state = Imagined()
    state.machines["x1"] = Machine(
        name="node-01", number=1, machine_id="x1", stage=stage, power=Power.HALTED, storage_id="s1", disk_bytes=3 * GIB
    )
    if stage in (Stage.SERVING, Stage.LEAVING):
        state.nodes["node-01"] = Node(name="node-01", state="silent", silent_s=9.0, draining=stage == Stage.LEAVING)
    plan = make_plan(wanted(count=1), state.pool(), state.nodes)
    assert kinds(plan) == expected
    until_as(state, wanted(count=1))
    assert len(state.serving()) == len(state.machines) == 1


def test_what_was_left_over_is_removed_first() -> None:
    state = Imagined(disks=[Disk(disk_id="d9", name="node-05 first boot")])
    state.machines["m1"] = Machine(
        name="node-01", number=1, machine_id="m1", stage=Stage.RAW, power=Power.HALTED, storage_id="s1"
    )
    plan = make_plan(wanted(count=1), state.pool(), {})
    assert [type(each) for each in plan.actions[:2]] == [Destroy, DestroyDisk]


def test_of_two_with_one_name_the_one_that_serves_stays() -> None:
    state = brought_up(2)
    serving = state.one("node-02")
    state.machines["z"] = msgspec.structs.replace(serving, machine_id="z", stage=Stage.CONFIGURED, power=Power.HALTED)
    plan = make_plan(wanted(count=2), state.pool(), state.nodes)
    assert plan.actions == (
        Destroy(name="node-02", machine_id="z", reason="there is another of this name, which has come further"),
    )


def test_machines_of_another_name_are_left_alone() -> None:
    state = brought_up(2)
    second = state.one("node-02")
    state.machines[second.machine_id] = msgspec.structs.replace(second, name="archive-7")
    plan = make_plan(wanted(count=1), state.pool(), state.nodes)
    assert plan.actions == ()
    assert plan.notes == ("of this cluster, but not named node-NN, so left alone: archive-7",)


# Too little


def test_too_little_memory_is_said_by_how_much_before_anything() -> None:
    state = Imagined(hosts=hosts(3, memory=4 * GIB))
    with pytest.raises(FullError) as caught:
        make_plan(wanted(count=30), state.pool(), {})
    need = 1 + 16 / 1024
    assert f"{21 * need:.1f} GiB of memory on the hosts are missing" in caught.value.message
    assert "there is enough for 9" in caught.value.message
    assert "Nothing was done" in caught.value.message


def test_too_little_room_is_said_by_how_much() -> None:
    state = Imagined(room=20 * GIB)
    with pytest.raises(FullError, match=r"72.1 GiB of room on shared are missing .* there is enough for 6"):
        make_plan(wanted(count=30), state.pool(), {})


def test_too_many_for_the_rule_of_spreading() -> None:
    state = Imagined()
    with pytest.raises(FullError, match=r"`per_host_max = 2` allows 6 on 3 hosts, not 7"):
        make_plan(wanted(count=7, per_host_max=2), state.pool(), {})
    assert len(make_plan(wanted(count=6, per_host_max=2), state.pool(), {}).actions) == 24


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 12),
    memories=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    room=st.integers(0, 60),
    most=st.integers(0, 4),
)
def test_a_plan_is_made_exactly_where_everything_fits(count: int, memories: list[int], room: int, most: int) -> None:
    shaped = tuple(
        msgspec.structs.replace(host, memory_total_bytes=each * GIB)
        for host, each in zip(hosts(len(memories)), memories, strict=True)
    )
    state = Imagined(hosts=shaped, room=room * GIB)
    wish = wanted(count=count, per_host_max=most)
    each = GIB + 16 * 2**20
    slots = [min(memory * GIB // each, most or 99) for memory in memories]
    fits = sum(slots) >= count and room * GIB // (3 * GIB + 4 * 2**20) >= count
    if fits:
        until_as(state, wish)  # every start there checks the memory
        assert len(state.serving()) == count
    else:
        with pytest.raises(FullError):
            make_plan(wish, state.pool(), {})
        partly = make_plan(wish, state.pool(), {}, partial=True)
        made = sum(isinstance(action, Make) for action in partly.actions)
        assert made == min(sum(slots), room * GIB // (3 * GIB + 4 * 2**20))
        assert any("What fits is done" in note for note in partly.notes)


@pytest.mark.parametrize("key", ["template", "storage", "network"])
def test_what_the_pool_does_not_have_is_named(key: str) -> None:
    with pytest.raises(SettingsError, match=rf"no {key} `nowhere` \(`nodes.{key}`\); there are: (image|shared|net)"):
        make_plan(wanted(**{key: "nowhere"}), Imagined().pool(), {})


def test_a_template_with_a_larger_disk_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"2.0 GiB, more than `nodes.disk_mib`"):
        make_plan(wanted(disk_bytes=GIB), Imagined().pool(), {})


def test_a_clone_needs_the_template_s_own_storage() -> None:
    pool = Imagined().pool()
    moved = msgspec.structs.replace(pool.templates[0], storage_id="elsewhere")
    with pytest.raises(SettingsError, match=r"`nodes.full_copy = true`"):
        make_plan(wanted(), msgspec.structs.replace(pool, templates=(moved,)), {})
    plan = make_plan(wanted(full_copy=True), msgspec.structs.replace(pool, templates=(moved,)), {})
    assert kinds(plan).count("Make") == 3


# Hosts


def closed(host: Host) -> Host:
    return msgspec.structs.replace(host, open=False)


def test_a_host_in_maintenance_gets_no_nodes() -> None:
    state = Imagined()
    state.hosts = (closed(state.hosts[0]), *state.hosts[1:])
    until_as(state, wanted(count=4))
    assert Counter(each.host_id for each in state.machines.values()) == {"h2": 2, "h3": 2}


# Upgrade


def test_an_upgrade_goes_node_by_node_and_never_below_the_number() -> None:
    state = brought_up(3)
    wish = wanted(count=3, revision="2")
    assert make_plan(wish, state.pool(), state.nodes).actions == ()
    least = 3
    for _ in range(20):
        plan = make_plan(wish, state.pool(), state.nodes, upgrade=True)
        if not plan.actions:
            break
        assert sum(isinstance(each, Make) for each in plan.actions) <= 1
        for action in state.carry_out(plan):
            if isinstance(action, Make):
                found = [each for each in state.machines.values() if each.name == action.name]
                state.machines[found[0].machine_id] = msgspec.structs.replace(found[0], revision="2")
            least = min(least, len(state.serving()))
    assert least == 3
    assert [each.revision for each in state.machines.values()] == ["2"] * 3


# Names


@given(st.integers(1, 9999))
def test_a_name_tells_its_number(number: int) -> None:
    assert number_of(wanted().name(number), "node-") == number


@pytest.mark.parametrize("name", ["node-0", "node-00", "node-007", "node-1x", "nodes-01", "node-10000", "node-٣٣", ""])
def test_other_names_have_none(name: str) -> None:
    assert number_of(name, "node-") is None


def test_configure_says_the_network_by_its_id() -> None:
    plan = make_plan(wanted(count=1), Imagined().pool(), {})
    assert [each.network_id for each in plan.actions if isinstance(each, Configure)] == ["n1"]
    assert [each for each in plan.actions if isinstance(each, Leave | Retire)] == []
