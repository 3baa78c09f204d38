"""Known failures of the field, in files and data sets: one test each, named after it; what is asserted is what happens.

CVE numbers name what kind of failure it was elsewhere; the inputs here are our own.
"""

import os
import struct
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from agent.get import OutFolder
from nodes.store import Store
from tests.dicom.build import (
    DEFLATED,
    EXPLICIT,
    FIELDS,
    IMAGE,
    PIXELS,
    element,
    even,
    explicit_image,
    file,
    item,
    uid,
)
from tests.dicom.test_identity import deflate, nested
from tests.encodings.images import Image
from tests.store.objects import fetch, put
from transfer.api import StoredObject
from transfer.dicom import check_complete, read_identity
from transfer.dicom.pixels import locate_pixels
from transfer.encodings import IMAGE_ENCODINGS, get_encoding
from transfer.errors import NotDicomError, NotSuitableError, TruncatedError
from transfer.inspection import inspect
from transfer.objects import Identity, object_id

HOSTILE = ["../../../../etc/cron.d/x", "/etc/passwd", "..\\..\\windows", "a/../../b", "x\0y", "~root", "$(id)", "|id"]


def hostile_image(value: str) -> bytes:
    """Return an image of which every value that anybody ever made a path of is hostile."""
    tags = (0x00080018, 0x00100010, 0x00100020, 0x0020000D, 0x0020000E, 0x00200013)
    fields = [(tag, vr, even(value) if tag in tags else old) for tag, vr, old in FIELDS]
    return file(b"".join(element(*each) for each in [*fields, *IMAGE[len(FIELDS) :]]), instance=value)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("value", HOSTILE)
def test_cve_2026_56445_values_of_a_data_set_never_become_a_node_s_path(tmp_path: Path, value: str) -> None:
    data = hostile_image(value)
    with Store.open(tmp_path / "in" / "node", 0) as store:
        before = files_below(tmp_path)
        record = put(store, data)
        name = object_id(data)
        assert files_below(tmp_path) - before == {f"in/node/objects/{name[:2]}/{name[2:4]}/{name}"}
        assert record.identity.sop_instance_uid.startswith(value.split("\0")[0])  # it is kept, as data
        assert fetch(store, name) == data


@pytest.mark.parametrize("value", HOSTILE)
def test_cve_2026_50003_values_of_a_data_set_never_become_a_reader_s_path(tmp_path: Path, value: str) -> None:
    out = tmp_path / "a" / "out"
    stored = StoredObject(
        object_id="ab" * 32, size_bytes=4, stored_bytes=4, encoding="raw", node_ids=["node-1"], names=[],
        identity=Identity(sop_instance_uid=value, study_instance_uid=value, patient_id=value),
    )  # fmt: skip
    sink = OutFolder(out).open(stored)
    sink.write(b"data")
    sink.finish()
    assert files_below(tmp_path) == {f"a/out/{'ab' * 32}.dcm"}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "..", "x%00y", "a//b"]
)
def test_cve_2022_2120_names_with_relative_paths_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    out = tmp_path / "a" / "out"
    stored = StoredObject(
        object_id="cd" * 32, size_bytes=4, stored_bytes=4, encoding="raw", node_ids=[], names=[name],
        identity=Identity(),
    )  # fmt: skip
    sink = OutFolder(out).open(stored)
    sink.write(b"data")
    sink.finish()
    assert files_below(tmp_path) == {f"a/out/{'cd' * 32}.dcm"}


@pytest.mark.parametrize("referenced", [b"..\\..\\SECRET", b"../../SECRET", b"/SECRET "])
def test_cve_2026_32711_a_dicomdir_is_not_followed(tmp_path: Path, referenced: bytes) -> None:
    (tmp_path / "SECRET").write_bytes(file(explicit_image()))
    records = element(0x00041430, "CS", b"IMAGE ") + element(
        0x00041500, "CS", referenced + b" " * (len(referenced) % 2)
    )
    sequence = element(0x00041220, "SQ", item(records))
    directory = tmp_path / "disc" / "inner" / "DICOMDIR"
    directory.parent.mkdir(parents=True)
    directory.write_bytes(file(sequence, sop_class="1.2.840.10008.1.3.10"))
    opened: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            opened.append(os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else "")

    sys.addaudithook(note)
    with pytest.raises(NotDicomError, match="a DICOMDIR, not an image"):
        inspect(directory, any_file=False)
    assert not [path for path in opened if "SECRET" in path]
    assert str(directory) in opened  # the hook does see what is opened


def test_pynetdicom_issue_1086_a_deflate_bomb_takes_neither_memory_nor_time() -> None:
    bomb = deflate(b"".join(element(*each) for each in IMAGE[:-1]) + element(0x7FE00010, "OW", bytes(400 << 20)), 9)
    assert len(bomb) < 1 << 20
    data = file(bomb, DEFLATED)
    tracemalloc.start()
    began_s = time.perf_counter()
    try:
        with pytest.raises(NotDicomError, match="refused"):
            check_complete(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20
    assert time.perf_counter() - began_s < 10


OVERFLOWS = [(65535, 65535, 1, 1), (65535, 65535, 3, 1 << 24), (32768, 65535, 1, 2), (1, 65535, 3, 1 << 24)]


@pytest.mark.parametrize(("rows", "columns", "samples", "frames"), OVERFLOWS)
def test_rows_times_columns_overflow_is_judged_by_the_bytes_that_are_there(
    rows: int, columns: int, samples: int, frames: int
) -> None:
    """Each product passes 2^32 or wraps to something small in 32 bits; none of them is room that anybody takes."""
    honest = Image(samples=samples).encode()
    wrong = honest
    for tag, value in ((0x00280010, rows), (0x00280011, columns)):
        at = wrong.index(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"US", 2)) + 8
        wrong = wrong[:at] + struct.pack("<H", value) + wrong[at + 2 :]
    if frames > 1:
        number = element(0x00280008, "IS", even(str(frames)))
        at = wrong.index(struct.pack("<HH", 0x0028, 0x0010))
        wrong = wrong[:at] + number + wrong[at:]
    tracemalloc.start()
    try:
        with pytest.raises(NotSuitableError, match=r"not an image"):
            locate_pixels(wrong)
        for name in IMAGE_ENCODINGS:
            encoding = get_encoding(name)
            try:
                stored = bytes(encoding.encode(wrong))
            except NotSuitableError:
                continue  # not an image to it: another encoding takes the bytes
            assert bytes(encoding.decode(stored, len(wrong))) == wrong
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 32 << 20


META = [0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010]
LENGTHS = [0xFFFF, 0x8000, 0x7FFF, 200, 1]


@pytest.mark.parametrize("number", range(5437, 5446))
def test_cve_2026_5437_to_5445_lengths_in_the_meta_header_read_nothing_beyond(number: int) -> None:
    """Lengths that lie, element by element: an identity or a refusal, and the same whatever lies behind the bytes."""
    original = file(explicit_image())
    tag = META[number % len(META)]
    at = original.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    for length in LENGTHS:
        lying = bytearray(original)
        lying[at + 6 : at + 8] = struct.pack("<H", length)
        if tag == 0x00020001:  # OB has a long length
            lying[at + 8 : at + 12] = struct.pack("<L", length << 16 | 0xFFFF)
        outcomes = []
        for behind in (b"", b"\xff" * 70_000, bytes(70_000)):
            room = memoryview(bytes(lying) + behind)[: len(lying)]
            try:
                outcomes.append(check_complete(room))
            except (NotDicomError, TruncatedError) as error:
                outcomes.append((type(error), error.message))
        assert outcomes[0] == outcomes[1] == outcomes[2]


def test_cve_2019_11687_an_executable_preamble_is_kept_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for preamble in (f"#!/bin/sh\ntouch {mark}\nexit\n".encode(), b"MZ\x90\0", b"\x7fELF\x02\x01\x01"):
        data = file(explicit_image(), preamble=preamble.ljust(128, b"\n")[:128])
        assert check_complete(data).sop_instance_uid == "1.2.3"
        with Store.open(tmp_path / "node", 0) as store:
            put(store, data)
            assert fetch(store, object_id(data)) == data  # originals, bit for bit
        for path in (tmp_path / "node").rglob("*"):
            if path.is_file():
                assert not path.stat().st_mode & 0o111, path
                assert not path.read_bytes()[:4].startswith((b"#!", b"MZ", b"\x7fELF"))  # our header comes first
    sink = OutFolder(tmp_path / "out").open(
        StoredObject(object_id=object_id(data), size_bytes=len(data), stored_bytes=len(data), encoding="raw",
                     node_ids=[], names=["scan.exe"], identity=Identity())
    )  # fmt: skip
    sink.write(data)
    sink.finish()
    assert (tmp_path / "out/scan.exe").read_bytes() == data
    assert not (tmp_path / "out/scan.exe").stat().st_mode & 0o111
    assert not mark.exists()


@pytest.mark.parametrize("vr", ["SQ", "UN"])
@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
def test_pydicom_issue_2330_nested_sequences_end_in_a_refusal_not_in_recursion(vr: str, depth: int) -> None:
    bomb = file(nested(depth, vr=vr) + explicit_image())
    limit = sys.getrecursionlimit()
    problems: list[BaseException] = []

    def read() -> None:
        for judge in (read_identity, check_complete):
            try:
                judge(bomb)
            except BaseException as error:
                problems.append(error)

    thread = threading.Thread(target=read)  # with a stack of its own, as the threads have that read files
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert [type(error) for error in problems] == [NotDicomError] * 2
    assert sys.getrecursionlimit() == limit


def test_the_image_that_these_change_is_sound() -> None:
    assert check_complete(file(explicit_image(), EXPLICIT)).sop_instance_uid == uid("1.2.3").rstrip(b"\0").decode()
    assert explicit_image().endswith(PIXELS)
