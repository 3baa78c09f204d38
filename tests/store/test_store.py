import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nodes import census
from nodes.census import Census
from nodes.incoming import Incoming, stored_bytes_max
from nodes.objectfile import HEADER_BYTES, Record
from nodes.store import Store
from tests.store.objects import EXPLICIT, dicom, fetch, noise, pieces, put, upload
from transfer import disk
from transfer.encodings import get_encoding
from transfer.errors import (
    BusyError,
    ConflictError,
    CorruptError,
    FullError,
    NotStoredError,
    ProtocolError,
    SettingsError,
    StorageError,
)
from transfer.objects import Identity, object_id

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "node"


@pytest.fixture
def store(folder):
    with Store.open(folder, 0) as opened:
        yield opened


def path_of(store, name):
    return store.folder / "objects" / name[:2] / name[2:4] / name


def files_of(store, part):
    return sorted(path.name for path in (store.folder / part).rglob("*") if path.is_file())


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def fail(number=errno.EIO):
    def call(*_):
        raise disk._storage_error(OSError(number, os.strerror(number)), "flush")

    return call


@pytest.mark.parametrize("encoding", ["raw", "zstd"])
@pytest.mark.parametrize("piece_bytes", [1000, 256 << 10, MIB])
@pytest.mark.parametrize("length", [0, 1, 4095, 63_488, 63_489, 65_536, 300_000, MIB, MIB + 1, 5 * MIB + 3])
def test_an_object_comes_back_bit_for_bit(store, length, piece_bytes, encoding):
    if piece_bytes == 1000 and length > MIB + 1:
        pytest.skip("thousands of pieces more show nothing more")
    data = noise(length // 2) + bytes(length - length // 2)
    record = put(store, data, piece_bytes=piece_bytes, encoding=encoding)
    stored = fetch(store, object_id(data))
    assert record == store.contains(object_id(data)) == store.check(object_id(data), deep=True)
    assert (record.size_bytes, record.stored_bytes, record.encoding) == (length, len(stored), encoding)
    assert b"".join(get_encoding(encoding).decoder(length).feed(stored)) == data
    assert path_of(store, object_id(data)).stat().st_size == HEADER_BYTES + len(stored)
    assert files_of(store, "incoming") == []


def test_the_identity_is_read_from_the_bytes(store):
    expected = Identity(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3.4",
        transfer_syntax_uid=EXPLICIT,
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.1",
        patient_id="ID 7",
        modality="CT",
        instance_number="1",
    )
    large = dicom(pixels=3 * MIB)
    assert put(store, dicom()).identity == expected
    assert put(store, dicom(pixels=600), encoding="zstd", piece_bytes=100).identity == expected
    assert put(store, large, piece_bytes=200_000, encoding="zstd").identity == expected
    assert store.contains(object_id(large)).identity == expected


@pytest.mark.parametrize("data", [b"", b"hello", dicom()[:300], bytes(128) + b"DICM"])
def test_what_is_not_dicom_is_any_file(store, data):
    assert put(store, data).identity == Identity(any_file=True)


@pytest.mark.parametrize("length", [10, 3 * MIB])
def test_other_bytes_than_announced_are_refused_and_leave_nothing(store, length):
    data = noise(length)
    assert isinstance(put(store, data, name=object_id(b"other")), CorruptError)
    short = store.begin(object_id(data), length, "raw")
    short.write(data[:-1])
    assert isinstance(store.commit([short])[0], CorruptError)
    assert store.contains(object_id(b"other")) is None
    assert files_of(store, "objects") == files_of(store, "incoming") == []


def test_more_bytes_than_announced_are_refused_as_they_come(store):
    incoming = store.begin(object_id(b"x"), 1, "raw")
    with pytest.raises(CorruptError):
        incoming.write(bytes(stored_bytes_max(1) + 1))
    incoming.abandon()
    slightly = store.begin(object_id(b"x"), 1, "raw")
    slightly.write(b"xy")
    assert isinstance(store.commit([slightly])[0], CorruptError)


def test_stored_bytes_that_swell_beyond_the_promise_are_refused(store):
    bomb = get_encoding("zstd").encode(bytes(64 * MIB))
    incoming = store.begin(object_id(bytes(64 * MIB)), 1000, "zstd")
    incoming.write(bomb)
    assert isinstance(store.commit([incoming])[0], CorruptError)


def test_garbage_in_place_of_an_encoding_is_refused(store):
    incoming = store.begin(object_id(b"x"), 1, "zstd")
    incoming.write(b"not zstd")
    assert isinstance(store.commit([incoming])[0], CorruptError)


def test_a_group_of_good_and_bad_keeps_the_good(store):
    good, large = noise(100_000), noise(2 * MIB, 3)
    group = [
        upload(store, good),
        upload(store, b"bad", name=object_id(b"worse")),
        upload(store, large, encoding="zstd"),
        upload(store, good, encoding="zstd"),
    ]
    first, second, third, fourth = store.commit(group)
    assert isinstance(second, CorruptError)
    assert (first.object_id, third.object_id) == (object_id(good), object_id(large))
    assert fourth == first  # the same object twice: one copy, the first
    assert files_of(store, "objects") == sorted([object_id(good), object_id(large)])
    assert isinstance(store.commit(group)[0], ConflictError)  # they have ended


def test_an_object_that_is_there_keeps_its_copy(store):
    data = bytes(10_000)
    first = put(store, data, encoding="zstd")
    before = path_of(store, object_id(data)).stat()
    assert put(store, data) == first
    assert os.path.samestat(before, path_of(store, object_id(data)).stat())
    assert store.statistics().objects == 1


def test_an_empty_group_is_nothing(store):
    assert store.commit([]) == []


def test_bytes_without_a_name_are_named_by_their_content(store):
    incoming = store.begin_unnamed(2 * MIB)
    for piece in pieces(noise(2 * MIB), MIB):
        incoming.write(piece)
    (record,) = store.commit([incoming])
    assert record.object_id == incoming.object_id == object_id(noise(2 * MIB))
    assert fetch(store, record.object_id) == noise(2 * MIB)


@pytest.mark.parametrize("name", ["", "x", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_name_that_is_no_object_id_never_becomes_a_path(store, name):
    with pytest.raises(ProtocolError):
        store.begin(name, 1, "raw")
    with pytest.raises(ProtocolError):
        store.read(name)


def test_an_unknown_encoding_is_refused(store):
    with pytest.raises(SettingsError):
        store.begin(object_id(b""), 0, "../x")


def test_writing_small_objects_needs_no_disk_before_the_commit(store, monkeypatch):
    monkeypatch.setattr(disk, "create", fail())
    incoming = store.begin(object_id(noise(MIB)), MIB, "raw")
    for piece in pieces(noise(MIB), 256 << 10):
        assert incoming.fits(len(piece))
        incoming.write(piece)
    assert not incoming.fits(1)
    incoming.abandon()


# ---- room


def test_a_node_refuses_what_would_use_its_reserve(folder, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda _: 2_000_000)
    with Store.open(folder, 1_000_000) as store:
        assert store.statistics().free_bytes == 1_000_000
        first = store.begin(object_id(b"a"), 900_000, "raw")
        with pytest.raises(FullError):
            store.begin(object_id(b"b"), 100_000, "raw")
        first.abandon()
        first.abandon()
        assert store.statistics().free_bytes == 1_000_000
        store.begin(object_id(b"b"), 900_000, "raw").abandon()


def test_promised_room_is_given_back_in_every_way(store, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda _: 1 << 30)
    put(store, noise(3 * MIB))
    put(store, noise(3 * MIB), name=object_id(b""))
    upload(store, noise(3 * MIB)).abandon()
    store.begin(object_id(b""), 5, "raw", resumable=True).abandon()
    store.begin(object_id(b""), 5, "raw", resumable=True).abandon()
    assert store.statistics().free_bytes == 1 << 30


def test_partial_uploads_that_nobody_sends_make_way_the_oldest_first(store, monkeypatch):
    def free_bytes(_):
        kept = [path for path in (store.folder / "incoming").iterdir() if path.stat().st_size > HEADER_BYTES]
        return 2_000_000 - 500_000 * len(kept)

    names = [object_id(noise(500_000, seed)) for seed in range(3)]
    for seed, name in enumerate(names):
        incoming = store.begin(name, 500_000, "raw", resumable=True)
        incoming.write(noise(400_000, seed))
        incoming.abandon()
        os.utime(store.folder / "incoming" / f"{name}.partial", (seed, seed))
    monkeypatch.setattr(disk, "free_bytes", free_bytes)
    writing = store.begin(names[0], 80_000, "raw", resumable=True)  # the oldest has a writer
    store.begin(object_id(b"x"), 950_000, "raw").abandon()
    assert files_of(store, "incoming") == sorted(f"{name}.partial" for name in (names[0], names[2]))
    with pytest.raises(FullError):
        store.begin(object_id(b"x"), 1_999_999, "raw")
    assert files_of(store, "incoming") == [f"{names[0]}.partial"]
    writing.abandon()


def test_a_partial_upload_that_is_done_just_when_room_is_made_fails_nobody(store, monkeypatch):
    """Its name was in the folder when that was read, and is gone when its age is asked for."""
    paths = [store.folder / "incoming" / f"{object_id(noise(9, seed))}.partial" for seed in (1, 2)]
    for path in paths:
        path.write_bytes(b"x")
    entries = disk.entries

    def read_and_go(folder):
        found = entries(folder)
        paths[0].unlink(missing_ok=True)
        return found

    monkeypatch.setattr(disk, "entries", read_and_go)
    monkeypatch.setattr(disk, "free_bytes", lambda _: 0 if paths[1].exists() else 1 << 30)
    store.begin(object_id(b"x"), 1, "raw").abandon()
    assert files_of(store, "incoming") == []


def test_real_images_are_stored_with_their_identities(store, real_data):
    images = [path.read_bytes() for path in sorted((real_data / "ct_head").rglob("*"))[:50] if path.is_file()]
    images = [data for data in images if data[128:132] == b"DICM"]
    records = store.commit([upload(store, data, encoding="zstd") for data in images])
    assert len({record.identity.sop_instance_uid for record in records}) == len(images) > 10
    assert {(record.identity.modality, record.identity.any_file) for record in records} == {("CT", False)}
    for data, record in zip(images, records, strict=True):
        stored = fetch(store, record.object_id)
        assert b"".join(get_encoding("zstd").decoder(len(data)).feed(stored)) == data


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], capture_output=True)
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mount.stderr.decode()}")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_disk_that_fills_up_fails_its_objects_only(small_disk, monkeypatch):
    with Store.open(small_disk / "node", 0) as store:
        monkeypatch.setattr(disk, "free_bytes", lambda _: 1 << 30)  # someone else writes there too
        group = [upload(store, noise(MIB - 5000, seed)) for seed in range(6)]
        outcomes = store.commit(group)
        stored = [outcome for outcome in outcomes if isinstance(outcome, Record)]
        assert 1 <= len(stored) <= 4
        assert all(isinstance(outcome, FullError) for outcome in outcomes if outcome not in stored)
        assert files_of(store, "incoming") == []
        with pytest.raises(FullError):
            upload(store, noise(5 * MIB))
        assert [store.check(record.object_id, deep=True) for record in stored] == stored


# ---- failing disks


def test_after_a_failed_flush_nothing_of_the_group_is_there_and_the_next_group_is_stored(store, monkeypatch):
    objects = [noise(1000, seed) for seed in range(3)] + [noise(3 * MIB)]
    with monkeypatch.context() as patch:
        patch.setattr(disk, "flush_file_system", fail())
        patch.setattr(disk, "flush_data", fail())
        outcomes = store.commit([upload(store, data) for data in objects])
    assert [type(outcome) for outcome in outcomes] == [StorageError] * 4
    assert files_of(store, "objects") == files_of(store, "incoming") == []
    assert store.contains(object_id(objects[0])) is None
    assert [type(put(store, data)) for data in objects] == [Record] * 4


def test_an_object_is_not_contained_before_its_name_is_durable(store, monkeypatch):
    data = [noise(10, seed) for seed in range(2)]
    seen = []
    flush = disk.flush_file_system if disk.CAN_FLUSH_FILE_SYSTEM else disk.flush_folder
    name = flush.__name__

    def look(argument):
        seen.append((files_of(store, "objects") != [], store.contains(object_id(data[0]))))
        flush(argument)

    monkeypatch.setattr(disk, name, look)
    store.commit([upload(store, each) for each in data])
    assert (True, None) in seen
    assert all(found is None for _, found in seen)
    assert store.contains(object_id(data[0])) is not None


def test_a_disk_without_direct_writes_is_used_by_way_of_the_page_cache(store, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_: fail_os(errno.EINVAL))
    data = noise(500_000)
    assert isinstance(put(store, data), Record)
    assert fetch(store, object_id(data)) == data


def test_a_short_direct_write_is_done_again_by_way_of_the_page_cache(store, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, view, offset: write(fd, view[:4096], offset))
    data = noise(500_000)
    assert isinstance(put(store, data), Record)
    assert fetch(store, object_id(data)) == data


def fail_os(number):
    raise OSError(number, os.strerror(number))


# ---- verify on read


@pytest.mark.parametrize("length", [1000, 5 * MIB + 7])
@pytest.mark.parametrize("place", ["first", "middle", "last", "header"])
def test_a_damaged_object_is_never_read_whole_and_is_quarantined(store, length, place):
    data = noise(length)
    name = put(store, data).object_id
    where = {
        "first": HEADER_BYTES,
        "middle": HEADER_BYTES + length // 2,
        "last": HEADER_BYTES + length - 1,
        "header": 50,
    }
    flip(path_of(store, name), where[place], bit=3)
    given = 0
    with pytest.raises(CorruptError), store.read(name) as reader:
        for block in reader:
            given += len(block)
    assert given < length
    assert (files_of(store, "objects"), files_of(store, "quarantine")) == ([], [f"{name}.0"])
    with pytest.raises(NotStoredError):
        store.read(name)
    assert store.statistics().objects == 0
    assert put(store, data).object_id == name
    assert fetch(store, name) == data
    flip(path_of(store, name), where[place])
    with pytest.raises(CorruptError):
        store.check(name, deep=True)
    assert files_of(store, "quarantine") == [f"{name}.0", f"{name}.1"]


@pytest.mark.parametrize("length", [1000, 5 * MIB + 7])
@pytest.mark.parametrize("offset", [50, HEADER_BYTES])
def test_a_damaged_object_costs_no_descriptor(store, length, offset):
    name = put(store, noise(length)).object_id
    flip(path_of(store, name), offset)
    assert store.wait_counted(10)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CorruptError):
        store.check(name, deep=True)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("change", [-1, 1, -(10 + HEADER_BYTES)])
def test_a_cut_or_grown_file_is_found_without_reading_it(store, change):
    name = put(store, noise(10)).object_id
    os.truncate(path_of(store, name), HEADER_BYTES + 10 + change)
    with pytest.raises(CorruptError):
        store.check(name, deep=False)
    assert files_of(store, "quarantine") == [f"{name}.0"]


def test_a_file_under_another_objects_name_is_corrupt(store):
    first, second = put(store, b"first"), put(store, b"second")
    path_of(store, second.object_id).write_bytes(path_of(store, first.object_id).read_bytes())
    assert store.contains(second.object_id) is None
    assert fetch(store, first.object_id) == b"first"


def test_a_damaged_copy_is_replaced_by_an_upload(store):
    name = put(store, noise(10)).object_id
    flip(path_of(store, name), 0)
    assert isinstance(put(store, noise(10)), Record)
    assert fetch(store, name) == noise(10)
    assert files_of(store, "quarantine") == [f"{name}.0"]


@pytest.mark.parametrize("length", [10, 5 * MIB])
def test_an_upload_is_not_answered_for_by_a_copy_whose_bytes_are_rotten(store, length):
    """Found by the corruption campaign, seed 1, change 13: the copy's header was sound, and the good bytes went."""
    name = put(store, noise(length)).object_id
    flip(path_of(store, name), HEADER_BYTES + length - 1)
    assert isinstance(put(store, noise(length)), Record)
    assert fetch(store, name) == noise(length)
    assert files_of(store, "quarantine") == [f"{name}.0"]
    assert store.statistics().objects == 1


def test_a_copy_that_is_here_is_read_once_before_it_stands_for_what_came(store, monkeypatch):
    name = put(store, noise(10)).object_id
    looks, check = [], store.check

    def look(object_id, *, deep):
        looks.append(deep)
        return check(object_id, deep=deep)

    monkeypatch.setattr(store, "check", look)
    assert isinstance(put(store, noise(10)), Record)
    assert looks.count(True) == 1
    one, other = upload(store, noise(11)), upload(store, noise(11))
    looks.clear()
    assert all(isinstance(each, Record) for each in store.commit([one, other]))
    assert looks.count(True) == 1  # nothing was here for both to read; the second reads what the first became
    assert fetch(store, name) == noise(10)


def test_a_reader_of_a_damaged_file_leaves_the_copy_alone_that_took_its_place(store):
    data = noise(5 * MIB)
    name = put(store, data).object_id
    flip(path_of(store, name), HEADER_BYTES + 5)
    with store.read(name) as late:
        with pytest.raises(CorruptError):
            store.check(name, deep=True)
        put(store, data)
        with pytest.raises(CorruptError):
            list(late)
    assert fetch(store, name) == data
    assert files_of(store, "quarantine") == [f"{name}.0"]


def test_small_objects_are_loaded_before_their_first_block(store, monkeypatch):
    name = put(store, noise(4 * MIB)).object_id
    with store.read(name) as reader:
        monkeypatch.setattr(disk, "read_at", fail())
        assert reader.loaded
        assert [len(block) for block in reader] == [MIB] * 4


# ---- resumable uploads

LARGE = noise(4 * MIB)
LARGE_ID = object_id(LARGE)


def begin_large(store, encoding="raw", size=4 * MIB):
    return store.begin(LARGE_ID, size, encoding, resumable=True)


@pytest.mark.parametrize("reopen", [False, True])
@pytest.mark.parametrize("cut", [0, 1, MIB, 3 * MIB + 17, 4 * MIB])
def test_a_resumable_upload_goes_on_where_it_stopped(folder, cut, reopen):
    store = Store.open(folder, 0)
    incoming = begin_large(store)
    assert incoming.offset_bytes == 0
    for piece in pieces(LARGE[:cut], 300_000):
        incoming.write(piece)
    incoming.abandon()
    if reopen:
        store.close()
        store = Store.open(folder, 0)
    incoming = begin_large(store)
    assert incoming.offset_bytes == cut
    for piece in pieces(LARGE[cut:], MIB):
        incoming.write(piece)
    (record,) = store.commit([incoming])
    assert record.object_id == LARGE_ID
    assert fetch(store, LARGE_ID) == LARGE
    assert files_of(store, "incoming") == []
    store.close()


def test_an_encoded_upload_goes_on_too(store):
    data = noise(2 * MIB) + bytes(3 * MIB)
    stored = bytes(get_encoding("zstd").encode(data))
    incoming = store.begin(object_id(data), len(data), "zstd", resumable=True)
    incoming.write(stored[: 3 * MIB // 2])
    incoming.abandon()
    incoming = store.begin(object_id(data), len(data), "zstd", resumable=True)
    incoming.write(stored[incoming.offset_bytes :])
    assert store.commit([incoming])[0].stored_bytes == len(stored)


def test_another_encoding_or_size_starts_anew(store):
    incoming = begin_large(store)
    incoming.write(LARGE[:MIB])
    incoming.abandon()
    begun = begin_large(store, encoding="zstd")
    assert begun.offset_bytes == 0
    begun.abandon()
    begun = begin_large(store, size=len(LARGE) + 1)
    assert begun.offset_bytes == 0
    begun.abandon()


def test_only_one_flow_writes_a_partial(store):
    first = begin_large(store)
    with pytest.raises(BusyError):
        begin_large(store)
    first.abandon()
    begin_large(store).abandon()


@pytest.mark.parametrize("offset", [0, 100, HEADER_BYTES + 5])
def test_a_damaged_partial_is_never_taken_for_the_object(store, offset):
    incoming = begin_large(store)
    incoming.write(LARGE[: 2 * MIB])
    incoming.abandon()
    flip(store.folder / "incoming" / f"{LARGE_ID}.partial", offset)
    incoming = begin_large(store)
    incoming.write(LARGE[incoming.offset_bytes :])
    (outcome,) = store.commit([incoming])
    assert isinstance(outcome, Record if offset < HEADER_BYTES else CorruptError)
    assert begin_large(store).offset_bytes == 0  # what is wrong is not kept


def test_old_and_needless_partials_and_all_temporary_files_go_at_the_start(folder):
    with Store.open(folder, 0) as store:
        put(store, LARGE)
        begin_large(store).abandon()
        ages = {object_id(b"old"): 8 * 24 * 3600, object_id(b"young"): 6 * 24 * 3600}
        for name, age_s in ages.items():
            store.begin(name, 3, "raw", resumable=True).abandon()
            path = folder / "incoming" / f"{name}.partial"
            os.utime(path, (time.time() - age_s, time.time() - age_s))
        (folder / "incoming" / "7.new").write_bytes(b"x")
    with Store.open(folder, 0) as store:
        assert files_of(store, "incoming") == [f"{object_id(b'young')}.partial"]


# ---- opening


def test_a_folder_has_one_node(folder, store):
    with pytest.raises(SettingsError, match="in use by another node"):
        Store.open(folder, 0)
    program = "import sys; from pathlib import Path; from nodes.store import Store; Store.open(Path(sys.argv[1]), 0)"
    other = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    assert "in use by another node" in other.stderr


def test_the_incarnation_stays_with_the_disk(tmp_path):
    with Store.open(tmp_path / "1", 0) as one, Store.open(tmp_path / "2", 0) as two:
        assert one.incarnation != two.incarnation
    with Store.open(tmp_path / "1", 0) as again:
        assert again.incarnation == one.incarnation
    (tmp_path / "1" / "incarnation").write_text("x")
    with pytest.raises(StorageError):
        Store.open(tmp_path / "1", 0)
    with pytest.raises(StorageError):  # and the lock was let go of
        Store.open(tmp_path / "1", 0)


def test_a_store_knows_its_counts_again_after_a_start(folder):
    with Store.open(folder, 0) as store:
        for seed in range(20):
            put(store, noise(100 + seed, seed))
        before = store.statistics()
        (folder / "objects" / "stray").mkdir()
        (folder / "objects" / "00").mkdir(exist_ok=True)
        (folder / "objects" / "00" / "stray").write_bytes(b"x")
    with Store.open(folder, 0) as store:
        assert store.wait_counted(60)
        after = store.statistics()
    assert (before.objects, before.stored_bytes) == (20, sum(range(100, 120)))
    assert (after.objects, after.stored_bytes, after.counted) == (20, sum(range(100, 120)), True)


def test_a_node_starts_where_the_object_of_a_partial_upload_cannot_be_looked_for(folder):
    with Store.open(folder, 0):
        path = folder / "incoming" / f"{LARGE_ID}.partial"
        path.write_bytes(b"x")
    (folder / "objects" / LARGE_ID[:2]).write_bytes(b"")  # no folder: as good as one that gives errors
    with Store.open(folder, 0) as store:
        assert files_of(store, "incoming") == [path.name]


def test_what_happens_while_counting_is_counted_once(folder, monkeypatch):
    with Store.open(folder, 0) as store:
        names = sorted(put(store, noise(50, seed)).object_id for seed in range(6))
    middle, go_on = threading.Event(), threading.Event()
    lengths = disk.lengths

    def paused(path):
        if path.endswith(f"{names[3][:2]}/{names[3][2:4]}"):
            middle.set()
            assert go_on.wait(60)
        return lengths(path)

    monkeypatch.setattr(disk, "lengths", paused)
    with Store.open(folder, 0) as store:
        assert middle.wait(60)
        for name in (names[0], names[5]):  # one that has been counted, one that has not
            flip(path_of(store, name), 0)
            assert store.contains(name) is None
        new = [put(store, noise(50, seed)).object_id for seed in range(6, 12)]
        go_on.set()
        assert store.wait_counted(60)
        statistics = store.statistics()
        assert statistics.objects == len(files_of(store, "objects")) == 4 + len(new)
        assert statistics.stored_bytes == 50 * statistics.objects


def test_a_folder_that_cannot_be_read_is_counted_when_it_can(folder, monkeypatch):
    """Of the others, what is here counts meanwhile; no restart is needed, and nothing is counted twice."""
    with Store.open(folder, 0) as store:
        names = sorted(put(store, noise(50, seed)).object_id for seed in range(6))
    assert len({name[:2] for name in names}) == 6
    sick = {f"{folder}/objects/{names[1][:2]}", f"{folder}/objects/{names[3][:2]}/{names[3][2:4]}"}
    tries = threading.Semaphore(0)

    def failing(call):
        def checked(path):
            if path in sick:
                tries.release()
                fail()()
            return call(path)

        return checked

    monkeypatch.setattr(census, "AGAIN_S", 0.01)
    monkeypatch.setattr(disk, "entries", failing(disk.entries))
    monkeypatch.setattr(disk, "lengths", failing(disk.lengths))
    with Store.open(folder, 0) as store:
        for _ in range(3):  # the third try is of the second round
            assert tries.acquire(timeout=60)
        assert (store.statistics().objects, store.statistics().counted) == (4, False)
        flip(path_of(store, names[0]), 0)  # one that has been counted, one that could not be
        flip(path_of(store, names[3]), 0)
        assert store.contains(names[0]) is None is store.contains(names[3])
        new = [put(store, noise(50, seed)).object_id for seed in range(6, 12)]
        assert store.statistics().objects == 3 + len(new)
        sick.clear()
        assert store.wait_counted(60)
        statistics = store.statistics()
        assert statistics.objects == len(files_of(store, "objects")) == 4 + len(new)
        assert (statistics.stored_bytes, statistics.counted) == (50 * statistics.objects, True)
        flip(path_of(store, names[1]), 0)
        assert store.contains(names[1]) is None
        assert store.statistics().objects == statistics.objects - 1


def test_a_count_that_cannot_be_made_is_not_complete(tmp_path):
    counting = Census(str(tmp_path / "not there"))
    counting.close()  # at once, although it would try again later
    assert not counting.complete


# ---- crashes and crowds


class Crash(BaseException):
    """The process dies here."""


STEPS = [
    "create",
    "write_at",
    "write_past_cache",
    "flush_data",
    "flush_file_system",
    "make_folders",
    "rename",
    "flush_folder",
]


def crash_at(monkeypatch, step):
    """Die at the step with this number; return how many there were, counted by reference."""
    count = [0]

    def wrapped(call):
        def wrapper(*args):
            if count[0] == step:
                raise Crash
            count[0] += 1
            return call(*args)

        return wrapper

    for name in STEPS:
        monkeypatch.setattr(disk, name, wrapped(getattr(disk, name)))
    return count


@pytest.mark.parametrize("members", [1, 3])
def test_a_crash_between_any_two_steps_loses_nothing_and_leaves_nothing_half(tmp_path, monkeypatch, members):
    objects = [noise(1000), noise(200_000, 3), noise(2 * MIB, 4)][-members:]
    ids = [object_id(data) for data in objects]
    for step in range(100):
        folder = tmp_path / str(step)
        store = Store.open(folder, 0)
        acknowledged = put(store, b"acknowledged").object_id
        crashed = False
        with monkeypatch.context() as patch:
            crash_at(patch, step)
            try:
                outcomes = store.commit([upload(store, data) for data in objects])
            except Crash:
                crashed = True
        store.close()
        with Store.open(folder, 0) as after:
            assert fetch(after, acknowledged) == b"acknowledged"
            for name, data in zip(ids, objects, strict=True):
                if after.contains(name) is not None:
                    assert fetch(after, name) == data
            assert files_of(after, "incoming") == []
            assert [put(after, data).object_id for data in objects] == ids
            assert [fetch(after, name) for name in ids] == objects
            assert files_of(after, "quarantine") == []
        if not crashed:
            assert [outcome.object_id for outcome in outcomes] == ids
            assert step > 3
            return
    pytest.fail("it never ends")


def test_many_threads_store_the_same_objects_once(store):
    objects = [noise(5000, seed) for seed in range(30)]

    def work(seed):
        return [store.commit([upload(store, data) for data in objects[start : start + 5]]) for start in range(0, 30, 5)]

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(work, range(4)))
    assert all(isinstance(record, Record) for result in results for group in result for record in group)
    assert store.statistics().objects == 30
    assert all(fetch(store, object_id(data)) == data for data in objects)
    assert files_of(store, "incoming") == []


def test_an_upload_says_how_it_stands(store):
    incoming = upload(store, b"12345")
    assert isinstance(incoming, Incoming)
    assert (incoming.stored_bytes, incoming.offset_bytes, incoming.ended) == (5, 0, False)
    store.commit([incoming])
    assert incoming.ended
