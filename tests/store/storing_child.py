"""A node's store in a process of its own, to be killed: stores objects in groups, prints each acknowledged id."""

import sys
from pathlib import Path

from nodes.objectfile import Record
from nodes.store import Store
from tests.store.objects import noise, upload

LENGTHS = [100, 70_000, 1_500_000]

if __name__ == "__main__":
    first = int(sys.argv[2])
    with Store.open(Path(sys.argv[1]), 0) as store:
        for start in range(first, first + 1_000_000, 6):
            group = [upload(store, noise(LENGTHS[seed % 3], seed)) for seed in range(start, start + 6)]
            for seed, outcome in zip(range(start, start + 6), store.commit(group), strict=True):
                assert isinstance(outcome, Record)
                print(seed, outcome.object_id, flush=True)
