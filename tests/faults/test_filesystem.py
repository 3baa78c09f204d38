"""The simulated disk keeps what was flushed, may lose all else, and never makes up what was not written."""

import errno
import os
import random

import pytest

from tests.faults.histories.machine import Machine
from tests.faults.histories.running import Stopped

FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL
SEEDS = range(300)


def new_machine(seed: int = 0) -> Machine:
    machine = Machine(random.Random(seed), lambda: None, None)
    machine.makedirs("/d")
    machine.disk.flush_everything()
    return machine


def create(machine: Machine, path: str, data: bytes = b"") -> int:
    descriptor = machine.open(path, FLAGS)
    write(machine, descriptor, data)
    return descriptor


def write(machine: Machine, descriptor: int, data: bytes, offset: int = 0) -> None:
    assert machine.pwritev(descriptor, [memoryview(data)], offset) == len(data)


def flush_names(machine: Machine, path: str = "/d") -> None:
    machine.fsync(machine.open(path, os.O_RDONLY))


def content(machine: Machine, path: str) -> bytes | None:
    try:
        descriptor = machine.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    buffer = memoryview(bytearray(machine.fstat(descriptor).st_size))
    assert machine.preadv(descriptor, [buffer], 0) == buffer.nbytes
    return bytes(buffer)


def after_power_cuts(prepare) -> set[bytes | None]:
    """What `/d/f` holds after a power cut, over many seeds."""
    found = set()
    for seed in SEEDS:
        machine = new_machine(seed)
        prepare(machine)
        machine.start_again(power_cut=True)
        found.add(content(machine, "/d/f"))
    return found


def test_what_was_flushed_with_its_name_stays() -> None:
    def prepare(machine: Machine) -> None:
        machine.fdatasync(create(machine, "/d/f", b"x" * 9000))
        flush_names(machine)

    assert after_power_cuts(prepare) == {b"x" * 9000}


def test_a_name_that_was_not_flushed_may_go() -> None:
    found = after_power_cuts(lambda machine: machine.fdatasync(create(machine, "/d/f", b"x")))
    assert found == {None, b"x"}


def test_bytes_that_were_not_flushed_are_torn_at_blocks() -> None:
    def prepare(machine: Machine) -> None:
        create(machine, "/d/f", b"x" * 9000)
        flush_names(machine)

    found = after_power_cuts(prepare)
    assert {b"", b"x" * 9000} < found
    whole = [data for data in found if data]
    for data in whole:
        blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
        assert all(block in (bytes(len(block)), b"x" * len(block)) for block in blocks)
    assert any(data[:512] == bytes(512) and b"x" in data for data in whole), "later blocks may come without earlier"
    assert any(len(data) % 4096 == 512 for data in whole)


def test_an_overwrite_may_be_kept_in_part() -> None:
    def prepare(machine: Machine) -> None:
        descriptor = create(machine, "/d/f", b"a" * 1024)
        machine.fdatasync(descriptor)
        flush_names(machine)
        write(machine, descriptor, b"b" * 1024)

    assert after_power_cuts(prepare) == {
        old + new for old in (b"a" * 512, b"b" * 512) for new in (b"a" * 512, b"b" * 512)
    }


def test_a_rename_is_never_half_lost() -> None:
    names = set()
    for seed in SEEDS:
        machine = new_machine(seed)
        machine.makedirs("/d/e")
        machine.fdatasync(create(machine, "/d/e/old", b"x"))
        machine.disk.flush_everything()
        machine.rename("/d/e/old", "/d/f")
        machine.start_again(power_cut=True)
        names.add((content(machine, "/d/e/old"), content(machine, "/d/f")))
    assert names == {(b"x", None), (None, b"x"), (b"x", b"x")}


def test_a_folder_that_was_not_flushed_goes_with_all_that_is_in_it() -> None:
    gone = False
    for seed in SEEDS:
        machine = new_machine(seed)
        machine.makedirs("/d/e")
        machine.fdatasync(create(machine, "/d/e/f", b"x"))
        flush_names(machine, "/d/e")
        machine.start_again(power_cut=True)
        gone = gone or "e" not in {entry.name for entry in _entries(machine, "/d")}
    assert gone


def _entries(machine: Machine, path: str):
    with machine.scandir(path) as found:
        return list(found)


def test_a_kill_leaves_what_was_visible() -> None:
    machine = new_machine()
    create(machine, "/d/f", b"x")
    machine.stop()
    with pytest.raises(Stopped):
        machine.lstat("/d/f")
    machine.start_again(power_cut=False)
    assert content(machine, "/d/f") == b"x"


def test_after_a_failed_flush_the_next_one_succeeds_and_the_bytes_are_lost() -> None:
    def prepare(machine: Machine) -> None:
        descriptor = create(machine, "/d/f", b"x" * 4096)
        flush_names(machine)
        machine.fault_ratio = 1.0
        with pytest.raises(OSError):
            machine.fdatasync(descriptor)
        machine.end_faults()
        machine.fdatasync(descriptor)
        assert content(machine, "/d/f") == b"x" * 4096, "the page cache still shows it"

    assert {b"", b"x" * 4096} <= after_power_cuts(prepare)


def test_a_failed_writeback_is_told_once_to_each_descriptor_that_was_open() -> None:
    machine = new_machine()
    file, folder = create(machine, "/d/f", b"x"), machine.open("/d", os.O_RDONLY)
    machine.disk.write_back(machine._file(file))
    assert [_flushes(machine, file), _flushes(machine, file)] == [False, True]
    later = machine.open("/d/f", os.O_RDWR)
    assert _flushes(machine, later), "who opens it after somebody was told hears nothing"
    before = machine.open("/d", os.O_RDONLY)
    assert [_syncs(machine, each) for each in (folder, folder, before)] == [False, True, False]
    assert _syncs(machine, machine.open("/d", os.O_RDONLY))


def _flushes(machine: Machine, descriptor: int) -> bool:
    try:
        machine.fdatasync(descriptor)
    except OSError:
        return False
    return True


def _syncs(machine: Machine, descriptor: int) -> bool:
    return machine.library.syncfs(_Int(descriptor)) == 0


class _Int:
    """As ctypes.c_int."""

    def __init__(self, value: int) -> None:
        self.value = value


def test_a_full_disk_takes_what_fits() -> None:
    machine = new_machine()
    machine.disk.room_bytes = 10
    descriptor = create(machine, "/d/f", b"1234567")
    assert machine.pwritev(descriptor, [memoryview(b"89abc")], 7) == 3
    with pytest.raises(OSError) as raised:
        write(machine, descriptor, b"d", 10)
    assert raised.value.errno == errno.ENOSPC
    machine.unlink("/d/f")
    assert machine.statvfs("/d").f_bavail == 10


def test_a_file_system_that_stopped_changes_nothing_until_it_is_mounted_again() -> None:
    machine = new_machine()
    create(machine, "/d/f", b"x")
    machine.disk.read_only = True
    for call in (lambda: machine.unlink("/d/f"), lambda: machine.makedirs("/d/e"), lambda: create(machine, "/d/g")):
        with pytest.raises(OSError) as raised:
            call()
        assert raised.value.errno == errno.EROFS
    assert content(machine, "/d/f") == b"x"
    machine.start_again(power_cut=False)
    assert not machine.disk.read_only
