"""`python -m tests.fuzz --count N --seed S [--target NAME]`: N inputs, all from the seed; prints one JSON object.

With `--results FILE` what is done is kept there, part by part, and the same command goes on where it stopped. What goes
wrong ends the run with exit code 1, and its input is kept in the corpus (`tests.fuzz.running`).
"""

import argparse
import json
import os
import sys
from pathlib import Path

from tests.fuzz.campaign import run
from tests.fuzz.targets import SHARES


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(SHARES))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    wanted = [given.target] if given.target else list(SHARES)
    found = run(given.count, wanted, given.seed, given.processes, given.results)
    print(json.dumps({key: value for key, value in found.items() if key != "parts"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
