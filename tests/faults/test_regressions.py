"""What histories found, each told once more by hand: the fault, then the promise that did not hold."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agent.spool import open_spool
from nodes.objectfile import Record
from nodes.store import Store
from tests.faults.histories.world import HOME, World, open_world
from tests.store.objects import fetch, noise, put, upload
from transfer import disk
from transfer.encodings import get_encoding
from transfer.errors import FascicleError, NotStoredError, StorageError
from transfer.objects import object_id

NODE = Path(HOME) / "node"
DATA = noise(5000)
NAME = object_id(DATA)


@pytest.fixture(params=range(20))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A machine; the parameter decides what its power cuts leave."""
    world = World(request.param)
    with open_world(world):
        yield world


def rot(world: World) -> None:
    """Change a byte of every stored object, behind its header."""
    for file in world.machine.disk.files():
        if len(file.data) > 2048:
            file.data[3000] ^= 1
            file.durable[3000] ^= 1


def test_the_way_to_a_new_spool_is_durable_before_anything_is_answered(world: World) -> None:
    """`open_lock` made the folder, and nobody flushed its name: all images received until a power cut were gone."""
    folder = Path(HOME) / "agent" / "spool"

    async def receive() -> str:
        async with open_spool(folder, reserve_bytes=0) as spool:
            incoming = await spool.begin("test")
            await incoming.write(DATA)
            return (await incoming.finish()).name

    async def scan() -> list[str]:
        async with open_spool(folder, reserve_bytes=0) as spool:
            return [each.name for each in await spool.scan()]

    name = trio.run(receive)
    world.machine.start_again(power_cut=True)
    assert trio.run(scan) == [name]


def test_a_rotten_copy_does_not_stand_for_good_bytes_that_came(world: World) -> None:
    """The sender was told "stored", its good bytes were let go, and only the rotten file was left."""
    store = Store.open(NODE, 0)
    assert isinstance(put(store, DATA), Record)
    rot(world)
    outcomes = store.commit([upload(store, DATA), upload(store, DATA)])
    assert [type(outcome) for outcome in outcomes] == [Record, Record], "the good bytes take its place"
    assert fetch(store, NAME) == DATA


def test_a_name_that_a_failed_group_could_not_take_back_is_not_answered_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush of names failed, the disk became read-only: the name stayed visible, and got a receipt when asked."""
    store = Store.open(NODE, 0)

    def break_down(*_: object) -> None:
        world.machine.disk.read_only = True
        raise disk._storage_error(OSError(5, "broken"), "flush")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "flush_folder", break_down)
        assert isinstance(put(store, DATA), FascicleError)
    assert disk.exists(f"{NODE}/objects/{NAME[:2]}/{NAME[2:4]}/{NAME}"), "the case that this test is of"
    assert store.contains(NAME) is None
    for deep in (False, True):  # what CHECK answers from
        with pytest.raises(NotStoredError):
            store.check_durable(NAME, deep=deep)
    world.machine.disk.read_only = False
    assert isinstance(put(store, DATA), Record), "a flush that succeeds settles it"
    assert store.contains(NAME) is not None
    world.machine.start_again(power_cut=True)
    assert fetch(Store.open(NODE, 0), NAME) == DATA


def test_what_is_left_of_an_earlier_upload_is_cut_off_for_good_before_the_new_one_is_answered(world: World) -> None:
    """The cut was not written back, another program's flush took the report: the old end came back with the power."""
    data = bytes(8000) + noise(2000)
    name, stored = object_id(data), get_encoding("zstd").encode(data)
    store = Store.open(NODE, 0)
    first = store.begin(name, len(data), "raw", resumable=True)
    first.write(data[:9000])
    first.abandon()
    world.machine.disk.flush_everything()
    again = store.begin(name, len(data), "zstd", resumable=True)
    for file in world.machine.disk.dirty_files():
        world.machine.disk.write_back(file)
    world.machine.disk.errors.tell()  # to another program
    again.write(stored)
    outcomes = store.commit([again, upload(store, DATA)])
    assert [type(outcome) for outcome in outcomes] == [StorageError, StorageError], "none of the group is answered for"
