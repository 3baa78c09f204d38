"""Where it is said that everything must run (`.ci/run`), a fault test that is skipped has failed.

Else a machine without root, loop devices or strace would show power cuts and system calls that nobody made.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest

MUST_RUN = "FASCICLE_FAULTS_MUST_RUN"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Turn a skip into a failure with its reason."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get(MUST_RUN):
        report.outcome, report.longrepr = (
            "failed",
            f"{item.nodeid} was skipped, and {MUST_RUN} is set: {report.longrepr}",
        )
    return report
