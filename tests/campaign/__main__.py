"""`make campaign`: everything that tries to break what was acknowledged, at length. Hours; exit 1 when anything broke.

One step after the other, each a command whose output goes to the terminal's standard error and whose totals are kept
in one results file, `campaign-results/COMMIT.json`, with seed, commit and machine. Run again on the same commit it goes
on with the steps that are not there yet, or that did not show what they must; `--only NAME,...` runs these alone.
`--scale 0.01` makes a hundredth of everything. Refuses to do: judging (`tests.campaign.steps`).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.machine import commit, describe
from tests.campaign.steps import STEPS, Step


@dataclass(frozen=True)
class Results:
    """The results file of one commit at one scale."""

    path: Path

    def read(self) -> dict[str, Any]:
        """Return what is there, by step."""
        found: dict[str, Any] = json.loads(self.path.read_text())["steps"] if self.path.exists() else {}
        return found

    def add(self, step: str, found: dict[str, Any], scale: float) -> None:
        """Add the result of one step."""
        steps = self.read() | {step: found}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"commit": commit(), "scale": scale, "machine": describe(), "steps": steps}
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(whole, indent=1) + "\n")
        temporary.replace(self.path)


def run_step(step: Step, scale: float) -> dict[str, Any]:
    """Run one step and return its totals with `lacking`, in words, and the seconds that it took."""

    def scaled(count: int) -> int:
        return max(1, round(count * scale))

    words, began_s = list(step.words(scaled)), time.monotonic()
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    found = _last_object(done.stdout)
    lacking = step.shortfalls(found, scaled) + [f"exit code {done.returncode}"] * (done.returncode != 0)
    return found | {
        "command": " ".join(["python", *words[1:]]),
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "took_s": round(time.monotonic() - began_s, 1),
        "lacking": lacking,
    }


def _last_object(output: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        return {"output": lines[-1][:500]}
    return found if isinstance(found, dict) else {}


def main(words: Sequence[str]) -> int:
    """Run the steps that are wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument(
        "--only", default="", help="these steps, with commas: " + ", ".join(step.name for step in STEPS)
    )
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("campaign-results"))
    given = parser.parse_args(words)
    names = given.only.split(",") if given.only else [step.name for step in STEPS]
    if unknown := set(names) - {step.name for step in STEPS}:
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    results = Results(given.out / f"{commit() or 'sources'}{'' if given.scale == 1 else f'-{given.scale:g}'}.json")
    for step in STEPS:
        before = results.read().get(step.name)
        if step.name not in names or (before and not before["lacking"] and not given.only):
            continue
        print(f"{step.name} ...", file=sys.stderr, flush=True)
        results.add(step.name, found := run_step(step, given.scale), given.scale)
        print(f"{step.name}: {found['took_s']} s, {found['lacking'] or 'as wanted'}", file=sys.stderr, flush=True)
    steps = results.read()
    print(json.dumps(steps))
    print(f"kept: {results.path}", file=sys.stderr)
    return 0 if all(name in steps and not steps[name]["lacking"] for name in names) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
