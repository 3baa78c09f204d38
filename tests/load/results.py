"""What a run under load found: figures, what was wanted of them, and a file with seed, commit and machine.

Refuses to do: measuring.
"""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.machine import describe


@dataclass
class Results:
    """The figures of one run; whatever was wanted and is not so is a problem."""

    name: str
    seed: int
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def want(self, met: bool, what: str) -> None:
        """Note a problem unless `met`."""
        if not met:
            self.problems.append(what)

    def result(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        seconds = round(time.monotonic() - self.started, 1)
        fixed = {"load": self.name, "seed": self.seed, "seconds": seconds}
        return fixed | self.figures | {"problems": self.problems}

    def keep(self, folder: Path, options: dict[str, Any]) -> Path:
        """Write a results file of its own into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        path = folder / f"load-{self.name}-{stamp}.json"
        whole = {"finished": stamp, "options": options, "machine": describe()} | self.result()
        path.write_text(json.dumps(whole, indent=1) + "\n")
        return path


def percentiles(values: list[float]) -> dict[str, float]:
    """Return count, median, 99th percentile (nearest rank) and maximum."""
    ordered = sorted(values)
    rank = max(0, -(-99 * len(ordered) // 100) - 1)
    return {
        "count": len(ordered),
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[rank], 3),
        "max": round(ordered[-1], 3),
    }
