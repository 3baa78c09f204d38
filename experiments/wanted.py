"""What is wanted of a campaign, as text (`fascicle <= 0.1 x ftp`, `fascicle node <= 150 MB`), and whether it is met.

Two peers are compared round by round, because only ratios within one round are honest on a machine with other work;
the median of the ratios counts. Pure functions of results. Refuses to do: measuring, being satisfied without a run.
"""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from experiments import figures
from experiments.figures import Case
from experiments.results import Results, Run
from transfer.errors import SettingsError

BEST: Final = "best"
FLOOR: Final = "floor"
OF_NODES: Final = re.compile(r"n([0-9]{1,4})")
AT_MOST: Final = re.compile(r"(?P<peer>[\w-]+) <= (?P<bound>[0-9]{1,6}(?:\.[0-9]{1,6})?) x (?P<other>[\w-]+)")
MEMORY: Final = re.compile(r"(?P<peer>[\w-]+) (?P<process>client|node) <= (?P<bound>[0-9]{1,6}) MB")
PEAKS: Final = {"client": "client_peak_bytes", "node": "server_process_peak_bytes"}
AT_LEAST: Final = re.compile(r"(?P<peer>[\w-]+) >= (?P<bound>[0-9]{1,6}(?:\.[0-9]{1,6})?) objects/s")


@dataclass(frozen=True)
class Want:
    """Seconds of `peer` at most `bound` times those of `other`, or, without `other`, at least `bound` objects a second.

    `other` is a peer, `best` (every other peer), `floor` (the link's least time), or `n5` (the same with 5 nodes).
    With `process`, peak memory of at most `bound` MB: of all of a `client`, of each `node`.
    """

    peer: str
    bound: float
    other: str = ""
    process: str = ""


@dataclass(frozen=True)
class Verdict:
    """One wish on one link with one number of nodes; without figures there was nothing to judge.

    `unit` is that of the figures found: `x ftp`, `objects/s`, `MB`.
    """

    wish: str
    case: Case
    unit: str
    found: tuple[float, ...]
    met: bool

    def text(self) -> str:
        """Return it in words."""
        head = f"{self.case.profile}, {self.case.label()}: wanted {self.wish}"
        if not self.found:
            return f"{head}: nothing was measured"
        spread = f"{_number(min(self.found))} to {_number(max(self.found))}, {len(self.found)} rounds"
        return f"{head}; found {_number(statistics.median(self.found))} {self.unit} ({spread}): {_met(self.met)}"


def parse(text: str) -> Want:
    """Read one wish.

    Raises:
        SettingsError: it is of none of the forms.
    """
    match = AT_MOST.fullmatch(text) or AT_LEAST.fullmatch(text) or MEMORY.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"--want {text!r} is not like 'fascicle <= 0.1 x ftp', 'fascicle >= 1500 objects/s' or "
            "'fascicle node <= 150 MB'"
        )
    words = match.groupdict()
    return Want(match["peer"], float(match["bound"]), words.get("other", ""), words.get("process", ""))


def judge(results: Results) -> list[Verdict]:
    """Return what became of each wish, on each link and with each number of nodes."""
    runs = figures.by_case(results)
    return [verdict for text in results["options"].get("wanted", ()) for verdict in _judge(text, runs, results)]


def _judge(text: str, runs: dict[Case, list[Run]], results: Results) -> Iterator[Verdict]:
    want = parse(text)
    mine = [case for case in runs if case.peer == want.peer and case.nodes not in _of_nodes(want)]
    for name in results["links"]:
        if not any(case.profile == name for case in mine):
            yield Verdict(text, Case(name, want.peer, 0), "", (), met=False)
    for case in mine:
        yield _verdict(text, want, case, runs)


def _verdict(text: str, want: Want, case: Case, runs: dict[Case, list[Run]]) -> Verdict:
    if want.process:
        found = tuple(run[PEAKS[want.process]] / 1e6 for run in runs[case])
        return Verdict(text, case, "MB", found, met=max(found) <= want.bound)
    if not want.other:
        found = tuple(run["objects"] / run["seconds"] for run in runs[case])
        return Verdict(text, case, "objects/s", found, met=statistics.median(found) >= want.bound)
    if want.other == FLOOR:
        found = tuple(run["seconds"] / run["floor_s"] for run in runs[case] if run["floor_s"])
        return Verdict(text, case, "x floor", found, met=bool(found) and statistics.median(found) <= want.bound)
    compared = {
        other.peer: ratios
        for other, theirs in runs.items()
        if other != case and _stands_against(other, case, want) and (ratios := _ratios(runs[case], theirs))
    }
    if not compared:
        return Verdict(text, case, "", (), met=False)
    against, found = max(compared.items(), key=lambda pair: statistics.median(pair[1]))
    unit = f"x {want.other if _of_nodes(want) else against}"
    return Verdict(text, case, unit, found, met=statistics.median(found) <= want.bound)


def _stands_against(other: Case, case: Case, want: Want) -> bool:
    if other.profile != case.profile:
        return False
    if numbers := _of_nodes(want):
        return other.peer == case.peer and other.nodes in numbers
    return other.nodes in {0, case.nodes} and want.other in {BEST, other.peer}


def _of_nodes(want: Want) -> set[int]:
    """Return the number of nodes that the wish compares with, if it is of that kind."""
    match = OF_NODES.fullmatch(want.other)
    return {int(match[1])} if match else set()


def _ratios(mine: Sequence[Run], theirs: Sequence[Run]) -> tuple[float, ...]:
    """Return my seconds over theirs, of the rounds in which both came to their end."""
    seconds = {run["run"]: run["seconds"] for run in theirs}
    return tuple(run["seconds"] / seconds[run["run"]] for run in mine if run["run"] in seconds)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _met(met: bool) -> str:
    return "met" if met else "not met"
