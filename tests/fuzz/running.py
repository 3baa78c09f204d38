"""Runs one part of one target's inputs, and judges: no crash, no hang, no growth.

A crash is whatever is no error of ours; a hang is an input that takes more than `HANG_S`; growth is a peak of memory
`GROWTH_BYTES` above what it was after the first inputs. Each keeps its input in the corpus as found-DIGEST, with which
every later run begins.
"""

import contextlib
import faulthandler
import hashlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz import seeds
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import chance_of, open_target

HANG_S = 10.0
GROWTH_BYTES = 256 << 20
WARM_UP = 300
AT_ONCE = {"http": 16}  # it mostly waits for time-outs
BATCH = 64


class Watch:
    """Ends the process when one input takes too long; it can do nothing else about code that does not return."""

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[str, bytes, float]] = {}  # by thread
        self.slowest_s = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    @contextlib.contextmanager
    def input(self, target: str, data: bytes) -> Iterator[None]:
        own, began_s = threading.get_ident(), time.monotonic()
        self._under_way[own] = (target, data, began_s)
        try:
            yield
        finally:
            del self._under_way[own]
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def _look(self) -> None:
        while True:
            time.sleep(0.5)
            for target, data, began_s in list(self._under_way.values()):
                if time.monotonic() - began_s > HANG_S:
                    print(f"hang: {keep(target, data)}", file=sys.stderr, flush=True)
                    faulthandler.dump_traceback()
                    os._exit(1)


def keep(target: str, data: bytes) -> str:
    """Put an input into the corpus; return its name."""
    path = seeds.CORPUS / target / f"found-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return str(path)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def fuzz(
    name: str, target: Callable[[bytes], None], count: int, seed: int, watch: Watch, *, part: int = 0
) -> dict[str, float]:
    """Run `count` mutations of the corpus, which all follow from `seed` and `part`; with part 0 the corpus, too."""
    corpus, chance, began_s, before_bytes = seeds.read(name), chance_of(seed, name, part), time.monotonic(), 0

    def run(data: bytes) -> None:
        with watch.input(name, data):
            try:
                target(data)
            except Exception:
                print(f"crash in {name}, seed {seed}, part {part}: {keep(name, data)}", file=sys.stderr, flush=True)
                raise

    inputs = [*corpus] if part == 0 else []
    done, whole = 0, len(inputs) + count
    with ThreadPoolExecutor(AT_ONCE[name]) if name in AT_ONCE else contextlib.nullcontext() as threads:
        while done < whole:
            batch = [inputs.pop(0) if inputs else mutate(chance, corpus) for _ in range(min(BATCH, whole - done))]
            for _ in threads.map(run, batch) if threads else map(run, batch):
                pass
            done += len(batch)
            if done <= WARM_UP or not before_bytes:
                before_bytes = peak_bytes()
            if peak_bytes() - before_bytes > GROWTH_BYTES:
                raise MemoryError(
                    f"growth in {name}, seed {seed}, part {part}: {keep(name, batch[-1])}, or just before"
                )
    return {
        "inputs": count,
        "seconds": round(time.monotonic() - began_s, 1),
        "slowest_s": round(watch.slowest_s, 3),
        "grown_bytes": peak_bytes() - before_bytes,
        "children_ended": getattr(target, "children_ended", 0),
    }


def run_part(name: str, count: int, seed: int, part: int) -> dict[str, float]:
    """Run one part in a process that runs nothing else meanwhile."""
    with open_target(name) as target:
        return fuzz(name, target, count, seed, Watch(), part=part)
