"""What a campaign counts, prints, and keeps in a file with its seed, its commit and its machine.

Refuses to do: naming the host or its folders (`experiments.machine`).
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from experiments.machine import describe

PROBLEMS_KEPT: Final = 50


@dataclass
class Totals:
    """The counts of one campaign."""

    campaign: str
    seed: int
    runs: int = 0
    fired: int = 0  # runs in which the fault happened
    acknowledged: int = 0
    reopened_s_max: float = 0.0  # opening again and checking everything
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)  # what one campaign alone counts
    started: float = field(default_factory=time.monotonic)

    def note(self, run: str, problems: list[str]) -> None:
        """Keep what was wrong in a run, with the words that name the run."""
        self.problem_count += len(problems)
        room = PROBLEMS_KEPT - len(self.problems)
        self.problems += [f"{run}: {problem}" for problem in problems][: max(0, room)]

    def count_run_of(self, role: str) -> None:
        """Count one run of a part; `runs` alone does not say how they were divided."""
        each = self.more.setdefault("runs_of", {})
        each[role] = each.get(role, 0) + 1

    @contextlib.contextmanager
    def time_reopening(self) -> Iterator[None]:
        """Measure how long it takes until a part is open and checked again."""
        before = time.monotonic()
        yield
        self.reopened_s_max = max(self.reopened_s_max, round(time.monotonic() - before, 4))

    def result(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        found = asdict(self)
        found |= found.pop("more")
        found["seconds"] = round(time.monotonic() - found.pop("started"), 1)
        return found

    def keep(self, folder: Path, options: dict[str, Any]) -> Path:
        """Write a results file of its own into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        path = folder / f"{self.campaign}-{stamp}.json"
        whole = {"finished": stamp, "options": options, "machine": describe()} | self.result()
        path.write_text(json.dumps(whole, indent=1) + "\n")
        return path
