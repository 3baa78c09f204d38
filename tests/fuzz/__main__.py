"""`python -m tests.fuzz --count N --seed S [--target NAME]`: N inputs, each from the seed; prints one JSON object.

A crash is whatever is no error of ours; a hang is an input that takes more than `HANG_S`; growth is a peak of memory
`GROWTH_BYTES` above what it was after the first inputs. Each ends the run with exit code 1 and puts the input into the
corpus as found-DIGEST, where every later run, and `tests/fuzz/test_fuzz.py`, begins with it.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tests.fuzz import seeds
from tests.fuzz.http import open_http
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import SHARES, TARGETS, chance_of
from transfer import log

HANG_S = 10.0
GROWTH_BYTES = 256 << 20
WARM_UP = 300


class Watch:
    """Ends the process when one input takes too long; it can do nothing else about code that does not return."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._what = ("", b"")
        self.slowest_s = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    @contextlib.contextmanager
    def input(self, target: str, data: bytes) -> Iterator[None]:
        self._what, self._began_s = (target, data), time.monotonic()
        try:
            yield
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - self._began_s)
            self._began_s = None

    def _look(self) -> None:
        while True:
            time.sleep(0.5)
            began_s = self._began_s
            if began_s is not None and time.monotonic() - began_s > HANG_S:
                print(f"hang: {keep(*self._what)}", file=sys.stderr)
                faulthandler.dump_traceback()
                os._exit(1)


def keep(target: str, data: bytes) -> str:
    """Put an input into the corpus; return its name."""
    path = seeds.CORPUS / target / f"found-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return str(path)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def fuzz(name: str, target: Callable[[bytes], None], count: int, seed: int, watch: Watch) -> dict[str, float]:
    """Run the corpus as it is, then `count` mutations of it."""
    corpus, chance, began_s, before_bytes = seeds.read(name), chance_of(seed, name), time.monotonic(), peak_bytes()
    for number in range(len(corpus) + count):
        data = corpus[number] if number < len(corpus) else mutate(chance, corpus)
        with watch.input(name, data):
            try:
                target(data)
            except Exception:
                print(f"crash in {name}, seed {seed}, input {number}: {keep(name, data)}", file=sys.stderr)
                raise
        if number == WARM_UP:
            before_bytes = peak_bytes()
        if peak_bytes() - before_bytes > GROWTH_BYTES:
            raise MemoryError(f"growth in {name}, seed {seed}, input {number}: {keep(name, data)}")
    grown_bytes = peak_bytes() - before_bytes
    return {"inputs": count, "seconds": round(time.monotonic() - began_s, 1), "grown_bytes": grown_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(SHARES))
    arguments = parser.parse_args()
    log.configure(role="fuzz", level="error")
    wanted = [arguments.target] if arguments.target else list(SHARES)
    found: dict[str, dict[str, float]] = {}
    watches: list[Watch] = []

    def run(name: str, target: Callable[[bytes], None]) -> None:
        count = arguments.count if arguments.target else arguments.count * SHARES[name] // 100
        watches.append(Watch())
        found[name] = fuzz(name, target, count, arguments.seed, watches[-1])

    with contextlib.ExitStack() as stack:
        beside: Future[None] | None = None
        if "http" in wanted:  # it waits for time-outs, mostly: beside the others
            http = stack.enter_context(open_http())
            beside = stack.enter_context(ThreadPoolExecutor(1)).submit(run, "http", http)
        for name, target in TARGETS.items():
            if name in wanted:
                run(name, target)
        if beside is not None:
            beside.result()
    totals = {"inputs": sum(each["inputs"] for each in found.values()), "seed": arguments.seed}
    print(json.dumps(totals | {"slowest_s": round(max(watch.slowest_s for watch in watches), 3), "targets": found}))


if __name__ == "__main__":
    main()
