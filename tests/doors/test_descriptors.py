"""Descriptors: the limit is raised as far as it may be, and places fit below it."""

import subprocess
import sys

import pytest

from transfer.descriptors import OTHERS, fit

CHILD = """
import resource
from transfer.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE), raise_limit())
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["512", "512", "512", "512"]


@pytest.mark.parametrize(("wanted", "limit", "fits"), [(512, 1 << 20, 512), (512, OTHERS + 100, 100), (512, 10, 8)])
def test_places_fit_below_the_limit(wanted: int, limit: int, fits: int) -> None:
    assert fit(wanted, limit) == fits
