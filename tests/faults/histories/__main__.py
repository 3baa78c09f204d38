"""Replay one history (`--seed 7`), run many (`--count 100000`), or try the mutants (`--mutants`)."""

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.faults.histories.campaign import run_batch, run_history, write_results
from tests.faults.histories.mutants import MUTANTS, first_seed_that_notices
from tests.faults.histories.world import Violation

BATCH = 250
MUTANT_SEEDS = 5_000


def replay(seed: int) -> int:
    try:
        print(dict(run_history(seed, print)))
    except Violation as error:
        print(error)
        return 1
    return 0


def campaign(seeds: range, processes: int, results: Path) -> int:
    total, broken, start_s = Counter[str](), list[str](), time.monotonic()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for some, failed in pool.map(run_batch, (seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH))):
            total, broken = total + some, broken + failed
            for line in failed:
                print(line, flush=True)
    write_results(results, seeds, total, time.monotonic() - start_s, broken)
    print(f"{dict(sorted(total.items()))}, broken: {len(broken)}; {results}")
    print(json.dumps({"totals": total, "broken": broken}))
    return 1 if broken else 0


def mutants() -> int:
    """Try each mistake until a history notices it; print which seed did."""
    noticed: dict[str, int] = {}
    for name in MUTANTS:
        if (found := first_seed_that_notices(name, range(MUTANT_SEEDS))) is not None:
            noticed[name] = found[0]
    unnoticed = sorted(set(MUTANTS) - set(noticed))
    print(
        json.dumps({"mutants": len(MUTANTS), "noticed_count": len(noticed), "by_seed": noticed, "unnoticed": unnoticed})
    )
    return 1 if unnoticed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.histories", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one and print its steps")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("faults-results/histories.json"))
    parser.add_argument("--mutants", action="store_true", help="put each mistake in; histories must notice it")
    given = parser.parse_args()
    if given.mutants:
        return mutants()
    if given.seed is not None:
        return replay(given.seed)
    return campaign(range(given.first, given.first + given.count), given.processes, given.results)


if __name__ == "__main__":
    sys.exit(main())
