"""What the long campaign runs, and what each step must show for it to count.

Each step is a command of its own whose last line of output is one JSON object. `wanted` are the least values of some
of its fields, by their path, which a scale makes smaller, `least` those that it does not, and `none` the fields that
must be 0 or empty. The figures are what is promised (docs/reliability.md). Refuses to do: running anything.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

PYTHON: Final = sys.executable
FAULTS: Final = (PYTHON, "-m", "tests.faults.real.campaign")
HISTORIES: Final = (PYTHON, "-m", "tests.faults.histories")

FUZZ_RESULTS: Final = "faults-results/fuzz.json"  # with it, what was cut off goes on

Scaled = Callable[[int], int]


@dataclass(frozen=True)
class Step:
    """One part of the campaign. `command` and `wanted` are made for a scale: 1 is what is promised."""

    name: str
    words: Callable[[Scaled], Sequence[str]]
    wanted: Mapping[str, int] = field(default_factory=dict)
    none: Sequence[str] = ("problem_count",)
    least: Mapping[str, int] = field(default_factory=dict)

    def shortfalls(self, found: Mapping[str, Any], scaled: Scaled) -> list[str]:
        """Return in words what the step's result lacks."""
        lacking = []
        for path, least in {**{path: scaled(count) for path, count in self.wanted.items()}, **self.least}.items():
            value = _at(found, path)
            if not isinstance(value, int | float) or value < least:
                lacking.append(f"{path}: wanted {least}, found {value}")
        return lacking + [f"{path}: wanted none, found {_at(found, path)}" for path in self.none if _at(found, path)]


def _at(found: Mapping[str, Any], path: str) -> Any:
    """Return the value at `path`; a path that is not there is `None`, which is no number, and no zero either."""
    value: Any = found
    for name in path.split("/"):
        if not isinstance(value, Mapping) or name not in value:
            return "nothing"
        value = value[name]
    return value


def _faults(name: str, *, wanted: Mapping[str, int], runs: int = 2_000) -> Step:
    return Step(name, lambda scaled: (*FAULTS, name, "--long", str(scaled(runs))), wanted)


def _load(name: str, scaled: Scaled) -> Sequence[str]:
    """Return the command of a load; one that is scaled down is its short form."""
    short = () if scaled(100) >= 100 else ("--short",)
    return (PYTHON, "-m", "tests.load", name, *short, "--out", "faults-results")


STEPS: Final = (
    Step(
        "histories",
        lambda scaled: (*HISTORIES, "--count", str(scaled(100_000)), "--processes", "2"),
        {"totals/histories": 100_000, "totals/power cuts": 200_000, "totals/acknowledged": 400_000},
        ("broken",),
    ),
    Step(
        "crash-states",
        lambda scaled: (PYTHON, "-m", "tests.faults.histories.crash_states", "--count", str(scaled(100))),
        none=("broken",),
    ),
    Step("mutants", lambda _: (*HISTORIES, "--mutants"), none=("unnoticed",), least={"noticed_count": 20}),
    _faults("sweep", wanted={}),
    _faults("kills", wanted={"fired": 2_000, "acknowledged": 200_000}),
    _faults("cuts", wanted={"fired": 2_000}),
    _faults("corruption", wanted={"runs": 20_000}),
    _faults("full", wanted={"runs": 400}),
    _faults("whole", wanted={"runs": 20}),
    _faults("cluster-kills", wanted={"fired": 2_000, "acknowledged": 200_000}),
    _faults("cluster-cuts", wanted={"runs": 2_000, "fired": 1_900}),
    _faults("catalogue", wanted={"fired": 40}),
    _faults("rot", wanted={"fired": 2_000, "healed": 2_000}),
    _faults("partitions", wanted={"fired": 100}),
    _faults("upgrades", wanted={"fired": 20}),
    _faults("clocks", wanted={"fired": 40}),
    _faults("damage", wanted={"runs": 200}),
    Step(
        "fuzz",
        lambda scaled: (PYTHON, "-m", "tests.fuzz", "--count", str(scaled(5_000_000)), "--results", FUZZ_RESULTS),
        {"inputs": 4_990_000},  # shares are rounded
        (),
    ),
    *(Step(f"load-{name}", partial(_load, name), none=("problems",)) for name in ("idle", "overload", "restart")),
    Step(
        "rebuild",
        lambda scaled: (PYTHON, "-m", "bench.rebuild", "--objects", str(scaled(1_000_000))),
        {"objects": 1_000_000},
        (),
        {"objects_per_s": 556},  # a million in half an hour
    ),
)
