"""Small measurements of the parts, one core each (`make bench-micro`): printed, kept, compared with a former run.

    python -m bench.micro [--only wire,encodings,node,catalogue] [--against FILE]

The exit code is 1 when something is slower by more than a quarter than in the former run, or compresses worse.
"""

import argparse
import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.measure import Figure
from experiments import machine

RESULTS = Path(__file__).parent / "results"
PARTS = ("wire", "encodings", "node", "catalogue")
SLOWER_RATIO, WORSE_RATIO = 0.75, 0.99


def main() -> int:
    """Measure, print, keep, compare."""
    parser = argparse.ArgumentParser(description="Measure the parts.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--against", type=Path, help="the JSON of a former run")
    given = parser.parse_args()
    former = _read(given.against) if given.against else {}
    figures: list[Figure] = []
    for part in given.only.split(","):
        for figure in importlib.import_module(f"bench.micro_{part}").figures():
            figures.append(figure)
            print(line(figure, former.get(figure.name)), flush=True)
    print(f"kept: {_keep(figures)}")
    worse = [figure.name for figure in figures if is_worse(figure, former.get(figure.name))]
    print("".join(f"worse: {name}\n" for name in worse), end="")
    return int(bool(worse))


def line(figure: Figure, former: Figure | None) -> str:
    """Return a figure as a line of the table."""
    ratio = "" if figure.ratio is None else f"  {figure.ratio:5.2f}"
    change = "" if former is None else f"  {figure.per_s / former.per_s - 1:+.0%}"
    return f"{figure.name:50} {figure.per_s:10.5g} {figure.unit}/s{ratio}{change}"


def is_worse(figure: Figure, former: Figure | None) -> bool:
    """Tell whether a figure is worse than a former one by more than a busy machine explains."""
    if former is None:
        return False
    return figure.per_s < SLOWER_RATIO * former.per_s or (figure.ratio or 0) < WORSE_RATIO * (former.ratio or 0)


def _read(path: Path) -> dict[str, Figure]:
    return {each["name"]: Figure(**each) for each in json.loads(path.read_text())["figures"]}


def _keep(figures: list[Figure]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = RESULTS / f"micro-{at}.json"
    kept = {"at": at, "machine": machine.describe(), "figures": [figure.as_json() for figure in figures]}
    path.write_text(json.dumps(kept, indent=1))
    return path


if __name__ == "__main__":
    sys.exit(main())
