"""One history by its seed, many of them, and what is written down: seeds, commit, machine, totals."""

import json
import os
import platform
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.faults.histories.of_node import NodeHistory
from tests.faults.histories.of_spool import SpoolHistory
from tests.faults.histories.world import Violation, World, open_world


def run_history(seed: int, trace: Callable[[str], None] | None = None) -> Counter[str]:
    """Run one history and count what happened in it.

    Raises:
        Violation: a promise was broken; the message names the seed.
    """
    kind = SpoolHistory if random.Random(seed).random() < 0.3 else NodeHistory
    world = World(seed, trace)
    with open_world(world):
        history = kind(world)
        try:
            history.run()
        except BaseException as error:
            for cause in _causes(error):
                raise Violation(f"seed {seed}: {cause!r}") from cause
            raise
    return history.journal.counts + Counter(
        histories=1, system_calls=world.machine.calls, faults=world.machine.all_faults
    )


def _causes(error: BaseException) -> Iterable[Exception]:
    """Yield what a group of errors is of."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    elif isinstance(error, Exception):
        yield error


def run_histories(seeds: Iterable[int]) -> Counter[str]:
    """Run one after the other; raises at the first that breaks a promise."""
    total: Counter[str] = Counter()
    for seed in seeds:
        total += run_history(seed)
    return total


def run_batch(seeds: Iterable[int]) -> tuple[Counter[str], list[str]]:
    """Run one after the other; returns what happened, and which broke a promise."""
    total, broken = Counter[str](), []
    for seed in seeds:
        try:
            total += run_history(seed)
        except Violation as error:
            broken.append(str(error))
    return total, broken


def write_results(path: Path, seeds: range, total: Counter[str], seconds: float, failed: list[str]) -> None:
    """Write down what was run, on what, and what came of it."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    results = {
        "first_seed": seeds.start,
        "seeds": len(seeds),
        "commit": commit.stdout.strip(),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
        },
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "totals": dict(sorted(total.items())),
        "broken": failed,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
