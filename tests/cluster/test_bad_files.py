"""Files that cannot be sent are refused by name with the reason, and the rest always goes (design section 12)."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from bench.cluster import Cluster
from bench.generate import ct_series, write_multiframe
from tests.cluster.conftest import seed_of
from tests.cluster.harness import assert_failed, assert_sent, contents, eventually, listing, objects_on_disk

pytestmark = pytest.mark.cluster


def image(name: str) -> bytes:
    """Return one small image that no other test has."""
    return next(ct_series(1, seed=seed_of(name), rows=64, columns=64))


BAD: dict[str, Callable[[Path], object]] = {
    "not DICOM": lambda path: path.write_text("a letter to a doctor\n" * 100),
    "empty": lambda path: path.write_bytes(b""),
    "truncated in the pixels": lambda path: path.write_bytes(image("truncated")[:-1000]),
    "truncated in the header": lambda path: path.write_bytes(image("header")[:300]),
    "only a preamble": lambda path: path.write_bytes(bytes(128) + b"DICM"),
    "a FIFO": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_by_name_and_the_rest_goes(
    cluster: Cluster, tmp_path: Path, series: Path, kind: str
) -> None:
    bad = tmp_path / "bad.dcm"
    BAD[kind](bad)
    result = cluster.run("send", bad, series)
    assert_failed(result, bad)
    assert result.summary["objects"] == 8


def test_a_path_that_is_not_there_is_named_before_anything_goes(cluster: Cluster, tmp_path: Path) -> None:
    result = cluster.run("send", tmp_path / "nowhere")
    assert result.code == 2
    assert str(tmp_path / "nowhere") in result.errors


def test_in_a_folder_what_is_not_dicom_is_ignored_and_listed(cluster: Cluster, series: Path) -> None:
    (series / "README.txt").write_text("these are images")
    (series / "DICOMDIR").write_bytes(dicomdir())
    result = cluster.run("send", series)
    assert_sent(result, objects=8)
    assert result.summary["ignored"] == 2
    assert sorted(os.path.basename(path) for path in result.summary["ignored_files"]) == ["DICOMDIR", "README.txt"]


def dicomdir() -> bytes:
    head = pydicom.dcmread(io.BytesIO(image("dicomdir")))
    head.file_meta.MediaStorageSOPClassUID = head.SOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    buffer = io.BytesIO()
    head.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_any_file_takes_what_is_not_dicom(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "report.txt").write_text("not an image, but wished for")
    assert_sent(cluster.run("send", "--any-file", tmp_path / "in"), objects=1)


def test_a_folder_that_links_to_itself_is_walked_once(cluster: Cluster, series: Path) -> None:
    (series / "again").symlink_to(series)
    (series / "deeper").mkdir()
    (series / "deeper" / "up").symlink_to("..")
    result = cluster.run("send", series)
    assert (result.code, result.summary["objects"]) == (0, 8)


def test_a_file_that_may_not_be_read_is_named(cluster: Cluster, tmp_path: Path, series: Path) -> None:
    closed = tmp_path / "closed.dcm"
    closed.write_bytes(image("closed"))
    closed.chmod(0)
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and there is no setpriv to give that up")
    # Root without these two capabilities is stopped by file modes like anyone else.
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "fascicle", "send", str(closed), str(series)]
    done = subprocess.run(
        [*without, *command, "--to", str(cluster.credentials)], capture_output=True, timeout=60, check=False, text=True
    )
    assert done.returncode == 1
    assert "closed.dcm" in done.stderr + done.stdout
    assert "ermission" in done.stderr + done.stdout


NAMES = [
    b"n" * 251 + b".dcm",
    b"latin-\xe9\xff.dcm",
    "日本語 名前.dcm".encode(),
    b"new\nline.dcm",
    b"%2e%2e%2f.dcm",
    b"-r.dcm",
    b"con\\slash.dcm",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_file_name_goes_and_comes_back(cluster: Cluster, tmp_path: Path, name: bytes) -> None:
    folder = os.fsencode(tmp_path) + b"/in"
    os.mkdir(folder)
    data = image(f"name {name!r}")
    with open(folder + b"/" + name, "wb") as file:
        file.write(data)
    assert_sent(cluster.run("send", tmp_path / "in"), objects=1)
    study = pydicom.dcmread(io.BytesIO(data)).StudyInstanceUID
    assert cluster.run("get", "--study", study, tmp_path / "out").code == 0
    (came_back,) = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert os.fsencode(came_back.name) == name
    assert came_back.read_bytes() == data


def test_the_same_uid_with_other_bytes_is_kept_and_reported(cluster: Cluster, tmp_path: Path) -> None:
    data = image("conflict")
    uid = pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.dcm").write_bytes(data)
    (tmp_path / "in" / "two.dcm").write_bytes(data[:-2] + b"\x01\x02")
    result = cluster.run("send", tmp_path / "in")
    assert_sent(result, objects=2)
    (conflict,) = result.summary["receipt"]["conflicts"]
    assert conflict["sop_instance_uid"] == uid
    assert len(set(conflict["object_ids"])) == 2
    study = pydicom.dcmread(io.BytesIO(data)).StudyInstanceUID
    assert cluster.run("get", "--study", study, tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "in")


@pytest.mark.parametrize("value", ["../../../escaped", "/etc/escaped", "..", "a/b"])
def test_no_dataset_value_becomes_a_path(cluster: Cluster, tmp_path: Path, value: str) -> None:
    head = pydicom.dcmread(io.BytesIO(image(f"uid {value}")))
    with pydicom.config.disable_value_validation():
        head.SOPInstanceUID = head.StudyInstanceUID = head.SeriesInstanceUID = value
        head.file_meta.MediaStorageSOPInstanceUID = value
        head.PatientID = head.PatientName = value
        (tmp_path / "in").mkdir()
        head.save_as(tmp_path / "in" / "uid.dcm", enforce_file_format=True)
    result = cluster.run("send", tmp_path / "in")
    assert result.code in (0, 1), result
    assert result.summary["objects"] == (1 if result.code == 0 else 0)
    assert cluster.run("get", "--all", tmp_path / "out" / "deep" / "er").code == 0
    assert not [path for path in cluster.data.parent.rglob("*escaped*")]
    assert not [path for path in tmp_path.rglob("*escaped*")]


def test_a_file_that_vanishes_is_named_and_the_rest_goes(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index, data in enumerate(ct_series(400, seed=seed_of("vanish"), rows=200, columns=200)):
        (folder / f"{index:03}.dcm").write_bytes(data)
    before = len(objects_on_disk(cluster))
    process = cluster.start("send", folder)
    eventually(lambda: process.poll() is not None or len(objects_on_disk(cluster)) > before, every_s=0.002)
    gone = sorted(folder.iterdir())[200:]
    for path in gone:
        path.unlink()
    output, errors = process.communicate(timeout=120)
    summary = json.loads(output.decode().splitlines()[-1])
    failed = {entry["file"] for entry in summary["failures"]}
    assert failed <= {str(path) for path in gone}
    assert summary["objects"] + len(failed) == 400, errors
    assert process.returncode == (1 if failed else 0)


def test_a_file_that_grows_is_named_and_never_half_stored(cluster: Cluster, tmp_path: Path, series: Path) -> None:
    growing = tmp_path / "growing.dcm"
    write_multiframe(growing, 30_000_000, seed=seed_of("growing"))
    stop = threading.Event()

    def grow() -> None:
        with growing.open("ab") as file:
            while not stop.is_set():
                file.write(bytes(1000))
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        result = cluster.run("send", growing, series)
    finally:
        stop.set()
        writer.join()
    assert_failed(result, growing)
    assert result.summary["objects"] == 8
    assert all(int(str(entry["size_bytes"])) < 1_000_000 for entry in listing(cluster))
