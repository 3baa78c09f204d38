"""Fixtures that several areas share: where the real DICOM is, and seeds that a failure prints."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real DICOM files (ct_head, sts, wg04); it is not part of the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FASCICLE_TEST_DATA", beside))
    if not (folder / "ct_head").is_dir():
        pytest.skip(f"no real DICOM at {folder}; set FASCICLE_TEST_DATA")
    return folder
