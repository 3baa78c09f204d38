"""Power cuts and failed calls while objects are put aside and back: each is in one place or the other, whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.objectfile import Record
from nodes.store import Store
from nodes.trash import NAME, Trash
from tests.faults.histories.world import HOME, World, open_world
from tests.store.objects import fetch, noise, put
from transfer import disk
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
