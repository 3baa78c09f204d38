"""Power cuts and failed calls while objects are put aside and back: each is in one place or the other, whole."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.objectfile import Record
from nodes.store import Store
from nodes.trash import NAME, Trash
from tests.faults.histories.running import Stopped
from tests.faults.histories.world import HOME, World, open_world
from tests.store.objects import fetch, noise, put
from transfer import disk
from transfer.durable import Volume, write_file_durably
from transfer.errors import FascicleError, StorageError
from transfer.objects import object_id

NODE = Path(HOME) / "node"
DATA = [noise(5000, seed=number) for number in range(3)]
IDS = [object_id(data) for data in DATA]


@pytest.fixture(params=range(20))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A machine; the parameter decides what its power cuts leave."""
    world = World(request.param)
    with open_world(world):
        yield world


def opened() -> tuple[Store, Trash]:
    store = Store.open(NODE, 0)
    return store, Trash(store)


def test_what_was_answered_as_put_aside_is_there_after_a_power_cut(world: World) -> None:
    store, trash = opened()
    assert all(isinstance(put(store, data), Record) for data in DATA)
    assert trash.discard(IDS[:2], "orphan", 60) == {}
    world.machine.start_again(power_cut=True)
    store, trash = opened()
    assert [entry.object_id for entry in trash.entries()[0]] == sorted(IDS[:2])
    assert [store.contains(name) is not None for name in IDS] == [False, False, True]
    assert all(isinstance(found, Record) for found in trash.restore(IDS[:2]).values())
    world.machine.start_again(power_cut=True)
    store, trash = opened()
    assert [fetch(store, name) for name in IDS] == DATA
    assert trash.entries()[0] == []


@pytest.mark.parametrize("way", ["aside", "back"])
def test_a_failed_flush_of_names_loses_nothing_and_answers_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The rename is visible and not durable: no receipt for it, and after a power cut the object is in one of both."""
    store, trash = opened()
    put(store, DATA[0])
    if way == "back":
        assert trash.discard(IDS[:1], "extra", 60) == {}

    def fail(*_: object) -> None:
        raise StorageError("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "flush_folder", fail)
        if way == "aside":
            assert isinstance(trash.discard(IDS[:1], "extra", 60)[IDS[0]], FascicleError)
        else:
            assert isinstance(trash.restore(IDS[:1])[IDS[0]], FascicleError)
        assert store.contains(IDS[0]) is None, "a receipt for it could prove false"
    world.machine.start_again(power_cut=True)
    store, trash = opened()
    held = [path for path in world.machine.disk.files()]
    assert held, "the object's file is somewhere"
    if store.contains(IDS[0]) is None:
        assert isinstance(trash.restore(IDS[:1])[IDS[0]], Record)
    assert fetch(store, IDS[0]) == DATA[0]
    assert all(NAME.match(entry.name) for entry in disk.entries(f"{NODE}/trash"))


# An object's state: whether it is in its place, and how many files of it are aside.
State = tuple[bool, int]
STEPS = 6


def after(step: str, here: bool, aside: int) -> State:
    """Return what a step that was answered leaves."""
    match step:
        case "put":
            return True, aside
        case "discard":
            return (False, aside + 1) if here else (here, aside)
        case "restore":
            return (True, aside - 1) if not here and aside else (here, aside)
    return here, 0


def between(step: str, here: bool, aside: int) -> set[State]:
    """Return what a step that was cut off may leave: what was, what comes, a rename as both names; never less."""
    done = after(step, here, aside)
    found = {(here, aside), done}
    if step == "purge":
        return {(here, left) for left in range(aside + 1)}
    if done != (here, aside) and step in ("discard", "restore"):
        found.add((True, max(aside, done[1])))
    return found


def seen(store: Store, trash: Trash, number: int) -> State:
    aside = sum(entry.name.startswith(IDS[number]) for entry in disk.entries(f"{NODE}/trash"))
    here = store.contains(IDS[number]) is not None
    assert not here or fetch(store, IDS[number]) == DATA[number]
    return here, aside


def do(step: str, store: Store, trash: Trash, number: int) -> None:
    name = IDS[number]
    match step:
        case "put":
            assert isinstance(put(store, DATA[number]), Record)
        case "discard":
            trash.discard([name], "orphan", 60)
        case "restore":
            trash.restore([name])
        case "purge":
            trash.purge([name], at_once=True)


def live(seed: int) -> None:
    """Go through some lives of a node, and judge what is left after each."""
    rng, world = random.Random(seed), World(seed)
    with open_world(world):
        may = {number: {(False, 0)} for number in range(len(IDS))}
        for _ in range(STEPS):
            store, trash = opened()
            for number in may:
                found = seen(store, trash, number)
                assert found in may[number], (number, found, may[number])
                may[number] = {found}
            world.machine.stop_at = world.machine.calls + rng.randrange(2, 150)
            try:
                while True:
                    step, number = (
                        rng.choice(["put", "put", "discard", "discard", "restore", "purge"]),
                        rng.choice([*may]),
                    )
                    ((here, aside),) = may[number]
                    may[number] = between(step, here, aside)
                    do(step, store, trash, number)
                    may[number] = {after(step, here, aside)}
                    assert seen(store, trash, number) in may[number]
            except Stopped:
                world.machine.start_again(power_cut=rng.random() < 0.7)
        store, trash = opened()
        for number, states in may.items():
            found = seen(store, trash, number)
            assert found in states
            if found != (False, 0):
                assert isinstance(trash.restore([IDS[number]])[IDS[number]], Record)
                assert fetch(store, IDS[number]) == DATA[number]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_is_cut_off_at_any_call_is_in_one_place_or_the_other(seed: int) -> None:
    """Kills and power cuts at a drawn system call of putting, putting aside, putting back and deleting."""
    live(seed)


@pytest.mark.parametrize("mistake", ["no flush of names", "the old name goes before the new one is there"])
def test_mistakes_are_noticed(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    def rename_only(_: Volume, source: str, target: str) -> None:
        disk.rename(source, target)

    def unlink_first(volume: Volume, source: str, target: str) -> None:
        descriptor = disk.open_to_read(source)
        data = bytes(disk.read_at(descriptor, 1 << 20, 0))
        disk.close(descriptor)
        disk.unlink(source)
        write_file_durably(Path(target), data)

    monkeypatch.setattr(Volume, "move", rename_only if mistake == "no flush of names" else unlink_first)

    def is_noticed(seed: int) -> bool:
        try:
            live(seed)
        except (AssertionError, FascicleError):
            return True
        return False

    assert any(map(is_noticed, range(100)))
