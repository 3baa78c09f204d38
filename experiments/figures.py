"""Figures of many runs: mean, standard deviation, median, and what is derived from them. Pure functions of results.

Refuses to do: writing them down (`experiments.table`, `experiments.plots`).
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from experiments.profiles import Profile
from experiments.results import Results, Run, good


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (of a sample; 0 for a single run) and median of `count` figures."""

    count: int
    mean: float
    deviation: float
    median: float


@dataclass(frozen=True, order=True)
class Case:
    """What was run: a peer, with a node count (0: it has none) over a link."""

    profile: str
    peer: str
    nodes: int

    def label(self) -> str:
        """Return peer and node count in words."""
        if not self.nodes:
            return self.peer
        return f"{self.peer}, {self.nodes} node{'s' * (self.nodes > 1)}"


def spread(values: Iterable[float]) -> Spread:
    """Return the spread of at least one figure."""
    found = list(values)
    deviation = statistics.stdev(found) if len(found) > 1 else 0.0
    return Spread(len(found), statistics.fmean(found), deviation, statistics.median(found))


def by_case(results: Results) -> dict[Case, list[Run]]:
    """Return the good runs of each case, in the order in which cases and links were asked for."""
    peers: list[str] = results["options"]["peers"]
    profiles = [profile["name"] for profile in results["options"]["profiles"]]
    found: dict[Case, list[Run]] = {}
    for run in good(results):
        found.setdefault(Case(run["profile"], run["peer"], run["nodes"]), []).append(run)

    def place(case: Case) -> tuple[int, int, int]:
        return profiles.index(case.profile), peers.index(case.peer), case.nodes

    return {case: found[case] for case in sorted(found, key=place)}


def profile_of(results: Results, name: str) -> Profile:
    """Return the link `name` as it was asked for."""
    return next(Profile(**profile) for profile in results["options"]["profiles"] if profile["name"] == name)


def seconds(runs: Sequence[Run]) -> Spread:
    """Return how long the runs took."""
    return spread(run["seconds"] for run in runs)


def floors(runs: Sequence[Run]) -> float | None:
    """Return the median time as a multiple of the least time that the link allows; None on a link without a rate."""
    multiples = [run["seconds"] / run["floor_s"] for run in runs if run["floor_s"]]
    return statistics.median(multiples) if multiples else None


def median(runs: Sequence[Run], name: str) -> float:
    """Return the median of the figure `name`."""
    return statistics.median(float(run[name]) for run in runs)


def goodput_series(run: Run) -> list[tuple[float, float]]:
    """Return (seconds, bit/s that came out of the link) between every two samples of a run."""
    samples = run["goodput"]
    pairs = ((a, b) for a, b in pairwise(samples) if b[0] > a[0])
    return [((a[0] + b[0]) / 2, (b[1] - a[1]) * 8 / (b[0] - a[0])) for a, b in pairs]


def median_run(runs: Sequence[Run]) -> Run:
    """Return the run whose time is the median, or just below it."""
    return sorted(runs, key=lambda run: float(run["seconds"]))[(len(runs) - 1) // 2]
