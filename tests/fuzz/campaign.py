"""Many parts, side by side in processes, and what came of them in a file: a run that was ended goes on from there.

A part is `PART` inputs of one target, which follow from the seed, the target and the part's number alone. What is in
the file with the same seed and commit is not run again; with another one the file begins anew.
"""

import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.fuzz.running import run_part
from tests.fuzz.targets import SHARES
from transfer import log

PART = 5000

Results = dict[str, Any]


def parts_of(count: int, wanted: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield target, number and inputs of each part; one target alone gets all inputs, else each its share."""
    for name in wanted:
        inputs = count if len(wanted) == 1 else count * SHARES[name] // 100
        size = PART if name != "http" else PART // 5  # it takes longer, and would be last
        for number, at in enumerate(range(0, inputs, size)):
            yield name, number, min(size, inputs - at)


def begin(path: Path | None, seed: int) -> Results:
    """Return what is there of this seed and commit, or the beginning of it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    machine = {
        "system": platform.platform(), "python": platform.python_version(), "processors": os.cpu_count(),
    }  # fmt: skip
    fresh = {"seed": seed, "commit": done.stdout.strip(), "machine": machine, "seconds": 0.0, "parts": {}}
    if path is None or not path.exists():
        return fresh
    found: Results = json.loads(path.read_text())
    return found if (found["seed"], found["commit"]) == (seed, fresh["commit"]) else fresh


def with_totals(results: Results) -> Results:
    """Return the results with what they come to, by target and in all."""
    targets: dict[str, dict[str, float]] = {}
    for key, part in results["parts"].items():
        total = targets.setdefault(key.split(":")[0], dict.fromkeys(part, 0))
        for field in ("inputs", "seconds", "children_ended"):
            total[field] = round(total[field] + part[field], 1)
        for field in ("slowest_s", "grown_bytes"):
            total[field] = max(total[field], part[field])
    return results | {
        "inputs": sum(each["inputs"] for each in targets.values()),
        "slowest_s": max((each["slowest_s"] for each in targets.values()), default=0),
        "targets": targets,
    }


def run(count: int, wanted: Sequence[str], seed: int, processes: int, path: Path | None) -> Results:
    """Run what is not done yet; raises what the first part that failed raised."""
    results = begin(path, seed)
    began_s, before_s = time.monotonic(), results["seconds"]
    left = [each for each in parts_of(count, wanted) if _done(results, *each) < each[2]]
    left.sort(key=lambda each: each[0] != "http")  # the long ones first
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_prepare) as pool:
        waiting = {pool.submit(run_part, name, inputs, seed, number): (name, number) for name, number, inputs in left}
        try:
            for part in as_completed(waiting):
                name, number = waiting[part]
                results["parts"][f"{name}:{number}"] = part.result()
                results["seconds"] = round(before_s + time.monotonic() - began_s, 1)
                write(path, results)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return with_totals(results)


def _done(results: Results, name: str, number: int, _: int) -> float:
    done: float = results["parts"].get(f"{name}:{number}", {"inputs": 0})["inputs"]
    return done


def _prepare() -> None:
    log.configure(role="fuzz", level="critical")


def write(path: Path | None, results: Results) -> None:
    """Keep the results, in one step."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    whole = with_totals(results) | {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    fresh.write_text(json.dumps(whole, indent=1) + "\n")
    fresh.replace(path)
