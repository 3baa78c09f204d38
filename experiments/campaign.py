"""A campaign: every link, every run, every peer and node count, in an order that alternates; results kept as they come.

Each single transfer has a fresh server, so nothing is stored already and nothing else runs beside it; all of one round
get the same fresh files. The link is probed before each round. Refuses to do: the measuring (`experiments.measure`).
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments import machine, results
from experiments.calibration import calibrate
from experiments.links import Link, open_link
from experiments.measure import measure
from experiments.peers.base import Job, Options, Peer
from experiments.profiles import Profile
from experiments.workload import Workload
from experiments.workplace import Workplace, open_workplace
from transfer.errors import FascicleError, SettingsError, StorageError


@dataclass(frozen=True)
class Plan:
    """What to run. `objects` by profile name, "" for the rest; 0: the whole workload."""

    profiles: Sequence[Profile]
    peers: Sequence[Peer]
    nodes: Sequence[int]
    runs: int
    workload: Workload
    objects: Mapping[str, int]
    options: Options
    algorithm: str
    wanted: Sequence[str]
    seed: int
    out: Path

    def describe(self) -> dict[str, Any]:
        """Return what a report says of the plan."""
        return {
            "profiles": [asdict(profile) for profile in self.profiles],
            "peers": [peer.name for peer in self.peers],
            "nodes": list(self.nodes),
            "runs": self.runs,
            "workload": self.workload.name,
            "objects": dict(self.objects),
            "algorithm": self.algorithm,
            "wanted": list(self.wanted),
            "seed": self.seed,
            **asdict(self.options),
        }


@dataclass(frozen=True)
class Case:
    """One peer with one node count; 0 where it has none to vary."""

    peer: Peer
    nodes: int


def cases(peers: Sequence[Peer], nodes: Sequence[int]) -> list[Case]:
    """Return every peer with every node count that it has."""
    return [Case(peer, count) for peer in peers for count in (nodes if peer.by_nodes else (0,))]


def order(every: Sequence[Case], run: int) -> list[Case]:
    """Return the order of round `run`: each begins one case later, every second one goes backwards."""
    start = run // 2 % len(every)
    turned = [*every[start:], *every[:start]]
    return turned[::-1] if run % 2 else turned


def seed_of(plan: Plan, profile: Profile, run: int) -> int:
    """Return the seed of a round, the same whenever the same campaign is repeated."""
    return plan.seed * 1_000_000 + plan.profiles.index(profile) * 10_000 + run


def conduct(plan: Plan, skipped: list[dict[str, str]]) -> results.Results:
    """Run `plan`, keeping results in its folder after each run, and return them.

    Raises:
        FascicleError: a link cannot be made or is not what it should be, or a disk is full; what was measured is kept.
    """
    kept = results.new(machine.describe(), plan.describe(), skipped)
    with _keeping(kept, plan.out), open_workplace() as workplace:
        for profile in plan.profiles:
            with open_link(profile, seed=plan.seed, algorithm=plan.algorithm) as link:
                kept["links"][profile.name] = link.describe()
                for run in range(plan.runs):
                    _round(plan, link, run, workplace, kept)
        kept["complete"] = True
    return kept


@contextmanager
def _keeping(kept: results.Results, out: Path) -> Iterator[None]:
    """Keep what there is, however it ends; one that cannot be run as it was asked for leaves nothing."""
    results.save(kept, out)
    try:
        yield
    except OSError as error:
        kept["ended"] = f"{error.filename or 'the campaign'}: {error.strerror}"
        _finish(kept, out)
        raise StorageError(
            f"{kept['ended']}; what was measured is in {out} (TMPDIR names where files are made)"
        ) from error
    except BaseException as error:
        kept["ended"] = error.message if isinstance(error, FascicleError) else type(error).__name__
        _finish(kept, out)
        if isinstance(error, SettingsError) and not kept["runs"]:
            results.forget(out)
        raise
    _finish(kept, out)


def _finish(kept: results.Results, out: Path) -> None:
    kept["finished"] = results.now()
    results.save(kept, out)


def _round(plan: Plan, link: Link, run: int, workplace: Workplace, kept: results.Results) -> None:
    profile, seed = link.profile, seed_of(plan, link.profile, run)
    files = plan.workload.write(
        workplace.folder / "files", objects=plan.objects.get(profile.name, plan.objects.get("", 0)), seed=seed
    )
    calibration = calibrate(link)
    _say(f"{profile.name}: run {run + 1} of {plan.runs}, link by {link.method}: {_short(calibration)}")
    try:
        for number, case in enumerate(order(cases(plan.peers, plan.nodes), run)):
            head = {"profile": profile.name, "peer": case.peer.name, "nodes": case.nodes, "run": run, "order": number}
            job = Job(link, workplace.folder / "job", case.nodes, files, plan.options)
            figures = _attempt(case, job, workplace)
            kept["runs"].append({**head, "seed": seed, "calibration": calibration, **figures})
            results.save(kept, plan.out)
            _say(f"  {_name(case):22} {_line(figures)}")
    finally:
        workplace.put_aside(workplace.folder / "files")


def _attempt(case: Case, job: Job, workplace: Workplace) -> dict[str, Any]:
    job.folder.mkdir()
    try:
        return measure(case.peer, job)
    except FascicleError as error:
        return {"error": error.message}
    finally:
        workplace.put_aside(job.folder)


def _name(case: Case) -> str:
    return f"{case.peer.name} n={case.nodes}" if case.nodes else case.peer.name


def _line(figures: dict[str, Any]) -> str:
    if "error" in figures:
        return f"failed: {figures['error']}"
    floor = f", {figures['seconds'] / figures['floor_s']:.2f} x floor" if figures["floor_s"] else ""
    return (
        f"{figures['seconds']:8.2f} s{floor}, processor {figures['client_processor_s']:.1f} + "
        f"{figures['server_processor_s']:.1f} s, {figures['retransmitted']} retransmitted"
    )


def _short(calibration: dict[str, Any]) -> str:
    rates = [f"{calibration[way] / 1e6:.2f} Mb/s" for way in ("up_bit_s", "down_bit_s") if way in calibration]
    return ", ".join([f"{calibration['round_trip_ms']:.1f} ms", *rates])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
