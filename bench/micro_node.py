"""What a node's store costs without the wire: CT slices taken, checked, flushed in groups, and read again."""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

from bench.generate import ct_series
from bench.measure import Figure, best_s
from nodes.objectfile import Record
from nodes.store import Store
from transfer.encodings import get_encoding
from transfer.objects import object_id

GROUP, IMAGES = 16, 400


def figures() -> Iterator[Figure]:
    """Measure."""
    for encoding in ("raw", "gradient-zstd", "jxl-1"):
        with tempfile.TemporaryDirectory(prefix="fascicle-bench-") as folder, Store.open(Path(folder), 0) as store:
            yield from _store(store, encoding)


def _store(store: Store, encoding: str) -> Iterator[Figure]:
    images = list(ct_series(IMAGES, seed=1, rows=256, columns=256))
    objects = [(object_id(image), len(image), bytes(get_encoding(encoding).encode(image))) for image in images]
    turns = count()

    def put() -> None:
        start = next(turns) * GROUP
        group = [objects[index % IMAGES] for index in range(start, start + GROUP)]
        uploads = []
        for name, size_bytes, stored in group:
            uploads.append(store.begin(name, size_bytes, encoding))
            uploads[-1].write(stored)
        assert all(isinstance(outcome, Record) for outcome in store.commit(uploads))

    megabytes = GROUP * len(images[0]) / 1e6
    put_s = [_once_s(put) for _ in range(IMAGES // GROUP - 1)]
    yield Figure(
        f"node: groups of {GROUP} stored durably, {encoding}", "MB", megabytes / sorted(put_s)[len(put_s) // 2]
    )
    names = [name for name, _, _ in islice(objects, GROUP)]
    yield Figure(f"node: objects read and checked, {encoding}", "MB", megabytes / best_s(lambda: _read(store, names)))


def _once_s(work: Callable[[], None]) -> float:
    """Return the seconds of one call: what is stored once is not written again."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _read(store: Store, names: list[str]) -> None:
    for name in names:
        with store.read(name) as reader:
            for _ in reader:
                pass
