"""Fixtures that several areas share: where the real DICOM is, and logs that one test cannot set for the next."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real DICOM files (ct_head, sts, wg04); it is not part of the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FASCICLE_TEST_DATA", beside))
    if not (folder / "ct_head").is_dir():
        pytest.skip(f"no real DICOM at {folder}; set FASCICLE_TEST_DATA")
    return folder


@pytest.fixture
def ended_pid() -> int:
    """The number of a process that has just ended."""
    with subprocess.Popen(["/bin/true"]) as process:
        return process.pid


@pytest.fixture(autouse=True)
def each_test_has_its_own_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo `transfer.log.configure`: a logger that is cached at first use would keep one test's settings for all."""
    configure = structlog.configure

    def without_cache(**how: Any) -> None:
        configure(**how | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", without_cache)
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
