"""`fascicle experiment`: from the command line to results, table and plots, or to the finding of one scenario.

An end by a signal is like any error: what is being run is stopped, namespaces and devices go, results stay and are
marked as not complete. Refuses to do: anything else.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments import arguments, campaign, namespaces, overtaking, results, wanted, workload
from experiments import resume as broken
from experiments.peers import registry
from experiments.peers.base import Options
from experiments.report import write_report
from transfer.errors import SettingsError


def run(given: argparse.Namespace) -> int:
    """Run a campaign, report it, and return the exit code: 1 when a run failed, or what is wanted is not met.

    Raises:
        FascicleError: nonsense on the command line, or a link that cannot be had.
    """
    plan, skipped = make_plan(given)
    for entry in skipped:
        _say(f"skipped: {entry['peer']}: {entry['reason']}")
    if stale := namespaces.remove_stale():
        _say(f"removed what a killed run had left: {', '.join(stale)}")
    with _signals_interrupt():
        kept = campaign.conduct(plan, skipped)
    return _report(kept, plan.out)


def report(given: argparse.Namespace) -> int:
    """Make table and plots of earlier results anew.

    Raises:
        SettingsError: there are none, or they lack what each of ours has.
    """
    kept = results.load(given.folder)
    try:
        return _report(kept, given.folder)
    except (KeyError, TypeError, IndexError, ValueError) as error:  # a file may have been changed by hand
        raise SettingsError(f"{given.folder}: not results of ours: {type(error).__name__} {error}") from error


def resume(given: argparse.Namespace) -> int:
    """Measure what broken transfers cost, and return the exit code.

    Raises:
        FascicleError: see `experiments.resume.run`.
    """
    namespaces.remove_stale()
    with _signals_interrupt():
        return broken.run(given)


def stat(given: argparse.Namespace) -> int:
    """Measure how an urgent study overtakes, and return the exit code.

    Raises:
        FascicleError: see `experiments.overtaking.run`.
    """
    namespaces.remove_stale()
    with _signals_interrupt():
        return overtaking.run(given)


def make_plan(given: argparse.Namespace) -> tuple[campaign.Plan, list[dict[str, str]]]:
    """Return what the command line asks for, and the peers that cannot run here.

    Raises:
        SettingsError: something makes no sense.
    """
    profiles = arguments.profiles(given)
    peers, skipped = registry.choose([name for name in given.peers.split(",") if name])
    if not peers:
        raise SettingsError(f"none of the peers is installed: {'; '.join(entry['reason'] for entry in skipped)}")
    for text in given.want:
        wanted.parse(text)
    _check_folder(given.out)
    plan = campaign.Plan(
        profiles=profiles,
        peers=registry.with_flows(peers, arguments.flow_counts(given.flows)),
        nodes=arguments.node_counts(given.nodes),
        runs=arguments.whole(given.runs, "--runs", 1, arguments.RUNS_MAX),
        workload=workload.choose(given.workload, arguments.whole(given.at_least_mb, "--at-least-mb", 1, 1_000_000)),
        objects=arguments.objects(given.objects, profiles),
        options=Options(encoding=given.encoding, congestion=given.congestion or "auto", plain=given.plain),
        algorithm=given.congestion,
        wanted=given.want,
        seed=arguments.whole(given.seed, "--seed", 0, arguments.SEED_MAX),
        out=given.out,
    )
    return plan, skipped


def _check_folder(out: Path) -> None:
    try:
        is_other, is_used = out.exists() and not out.is_dir(), (out / results.NAME).exists()
    except OSError as error:
        raise SettingsError(f"--out {str(out)[:100]}: {error.strerror}") from error
    if is_other:
        raise SettingsError(f"--out {out}: not a folder")
    if is_used:
        raise SettingsError(f"--out {out}: has results already; name another folder")


def _report(kept: results.Results, folder: Path) -> int:
    for path in write_report(kept, folder):
        _say(f"wrote {path}")
    print((folder / "table.md").read_text())
    failed = any("error" in one for one in kept["runs"])
    return 1 if failed or not all(verdict.met for verdict in wanted.judge(kept)) else 0


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
