"""Sums along the columns of a strip."""

import numpy as np
import pytest

from transfer.encodings.gradient import BLOCK_ROWS, sum_down


@pytest.mark.parametrize("rows", [1, 2, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 5 * BLOCK_ROWS, 509])
@pytest.mark.parametrize("columns", [1, 7, 64])
@pytest.mark.parametrize(("colours", "kind"), [(1, "<u2"), (3, "<u2"), (1, "<u1"), (3, "<u1")])
def test_each_row_becomes_the_sum_of_those_above_it(rows, columns, colours, kind):
    strip = np.random.default_rng(rows).integers(0, np.iinfo(kind).max, (colours, rows, columns), kind, endpoint=True)
    expected = np.cumsum(strip, axis=1, dtype=kind)
    sum_down(strip)
    assert np.array_equal(strip, expected)
