"""Copies of real files: other objects with the same pixels, valid, and none twice."""

from pathlib import Path

import pytest
from pydicom import dcmread

from experiments import workload
from experiments.generate import write_series
from transfer.errors import SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(tmp_path / "in", 3, seed=4, rows=16, columns=16)
    (tmp_path / "in" / "README").write_text("not DICOM")
    return tmp_path / "in"


def test_copies_have_new_uids_of_the_same_length_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    chosen = workload.choose(str(folder), 1)
    copies = [dcmread(path) for path in chosen.write(tmp_path / "out", objects=5, seed=1)]
    originals = [dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    assert len({copy.SOPInstanceUID for copy in copies} | {one.SOPInstanceUID for one in originals}) == 8
    assert len({copy.SeriesInstanceUID for copy in copies}) == 2  # one for each round over the folder
    for number, copy in enumerate(copies):
        original = originals[number % 3]
        assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
        assert copy.SOPInstanceUID.is_valid
        assert len(copy.SOPInstanceUID) == len(original.SOPInstanceUID)
        assert copy.PixelData == original.PixelData
        for one in (copy, original):
            del one.SOPInstanceUID, one.SeriesInstanceUID, one.StudyInstanceUID
        assert copy == original
        originals[number % 3] = dcmread(original.filename)


def test_other_runs_send_other_objects_and_the_same_seed_the_same(folder: Path, tmp_path: Path) -> None:
    chosen = workload.choose(str(folder), 1)

    def contents(name: str, seed: int) -> list[bytes]:
        return [path.read_bytes() for path in chosen.write(tmp_path / name, objects=2, seed=seed)]

    assert contents("a", 1) == contents("b", 1)
    assert not set(contents("c", 1)) & set(contents("d", 2))


def test_files_are_repeated_until_there_are_enough_bytes(folder: Path, tmp_path: Path) -> None:
    sources = workload.choose(str(folder), 1).sources
    size = sum(path.stat().st_size for path in folder.glob("*.dcm"))
    chosen = workload.Workload("in", sources, at_least_bytes=2 * size + 1)
    assert len(chosen.write(tmp_path / "out", objects=0, seed=1)) == 7


def test_real_files_are_valid_after_it(real_data: Path, tmp_path: Path) -> None:
    chosen = workload.choose(str(real_data / "ct_head"), 1)
    [path] = chosen.write(tmp_path / "out", objects=1, seed=1)
    assert dcmread(path).pixel_array.any()


def test_small_images_have_ten_kilobytes(tmp_path: Path) -> None:
    paths = workload.choose("small", 1).write(tmp_path / "out", objects=3, seed=1)
    assert [path.stat().st_size for path in paths] == [10_120] * 3
    assert dcmread(paths[0]).pixel_array.shape == (68, 68)


def test_a_folder_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("x" * 200)
    for text in (str(tmp_path / "absent"), str(tmp_path / "note"), str(tmp_path)):
        with pytest.raises(SettingsError, match="--workload"):
            workload.choose(text, 1)
