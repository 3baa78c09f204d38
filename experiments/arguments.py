"""The grammar of `fascicle experiment`: its options and which values make sense. Refuses to do: importing what runs."""

import argparse
from pathlib import Path
from typing import Any, Final

from experiments.profiles import OWN, PROFILES, Profile
from experiments.profiles import choose as choose_profiles
from transfer.errors import SettingsError

PAPER_NODES: Final = "1,5,30"
NODES_MAX: Final = 100
RUNS_MAX: Final = 1000
FLOWS_MAX: Final = 256
OBJECTS_MAX: Final = 100_000
SEED_MAX: Final = 10**9
WISHES: Final = (
    "such as 'fascicle <= 0.1 x ftp'; also x floor (the link's least time), x n5 (the same with 5 nodes), "
    "x best (of all others)"
)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fascicle experiment run`."""
    add = parser.add_argument
    add("profiles", nargs="+", metavar="PROFILE", help=f"{', '.join(PROFILES)}, or {OWN} with --rate, --delay, --loss")
    add("--nodes", default=PAPER_NODES, metavar="N,...", help="node counts; default: %(default)s")
    add("--runs", type=int, default=3, metavar="N", help="of everything; the paper's table: 30; default: %(default)s")
    add("--peers", default="", metavar="NAME,...", help="default: all that are installed")
    add("--workload", default="paper", metavar="paper|small|DIR", help="generated, or copies of real files")
    add("--objects", default="", metavar="N,PROFILE=N", help="fewer objects, for all or for one profile: 60,adsl=12")
    add("--at-least-mb", type=int, default=200, metavar="MB", help="of real files; default: %(default)s")
    add("--rate", default="", metavar="UP[/DOWN]", help=f"bit/s of the profile {OWN}: 20M, 2M/8M")
    add("--delay", default="", metavar="MS", help=f"round trip of the profile {OWN}: 40ms")
    add("--loss", default="", metavar="SHARE", help=f"lost packets of the profile {OWN}: 1%%")
    add("--congestion", default="", metavar="NAME", help="TCP at both ends, for everyone; default: the kernel's")
    add("--encoding", default="auto", metavar="NAME", help="of ours; default: %(default)s")
    add("--flows", default="auto", metavar="auto,N,...", help="of ours, each a peer of its own; default: %(default)s")
    add("--plain", action="store_true", help="ours without TLS")
    add("--want", action="append", default=[], metavar="TEXT", help=f"{WISHES}; else exit code 1")
    add("--seed", type=int, default=1, metavar="N", help="of images, loss and names; default: %(default)s")
    add("--out", type=Path, default=Path("experiment"), metavar="DIR", help="default: %(default)s")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fascicle experiment report`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="of results.json; table and plots go there")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fascicle experiment resume`."""
    parser.add_argument("--nodes", default="1,5", metavar="N,...", help="node counts; default: %(default)s")
    parser.add_argument("--images", type=int, default=120, metavar="N", help="of 801 KiB; default: %(default)s")
    parser.add_argument("--object-mb", type=int, default=96, metavar="MB", help="default: %(default)s")


def add_stat(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fascicle experiment stat`."""
    parser.add_argument("--workload", default="paper", metavar="paper|DIR", help="of the bulk; default: %(default)s")
    parser.add_argument("--bulk", type=int, default=40, metavar="N", help="images under way; default: %(default)s")


def profiles(given: argparse.Namespace) -> list[Profile]:
    """Return the profiles that the command line names.

    Raises:
        SettingsError: see `experiments.profiles.choose`.
    """
    return choose_profiles(given.profiles, given.rate, given.delay, given.loss)


def node_counts(text: str) -> list[int]:
    """Read `1,5,30`.

    Raises:
        SettingsError: not whole numbers, out of bounds, or one twice.
    """
    found = [whole(word, "--nodes", 1, NODES_MAX) for word in text.split(",")]
    if len(set(found)) != len(found):
        raise SettingsError(f"--nodes {text!r} has a number twice")
    return found


def flow_counts(text: str) -> list[int]:
    """Read `auto,2,4`; 0 is automatic.

    Raises:
        SettingsError: neither, out of bounds, or one twice.
    """
    found = [0 if word == "auto" else whole(word, "--flows", 1, FLOWS_MAX) for word in text.split(",")]
    if len(set(found)) != len(found):
        raise SettingsError(f"--flows {text!r} has a number twice")
    return found


def objects(text: str, known: list[Profile]) -> dict[str, int]:
    """Read `60,adsl=12` into counts by profile name, "" for the rest.

    Raises:
        SettingsError: not whole numbers, out of bounds, or a profile that is not run.
    """
    found: dict[str, int] = {}
    for word in text.split(",") if text else ():
        name, _, number = word.rpartition("=")
        if name and name not in {profile.name for profile in known}:
            raise SettingsError(f"--objects {text!r}: {name!r} is not a profile of this run")
        if name in found:
            raise SettingsError(f"--objects {text!r} says two things")
        found[name] = whole(number, "--objects", 1, OBJECTS_MAX)
    return found


def whole(value: Any, option: str, low: int, high: int) -> int:
    """Return `value` as a whole number within bounds.

    Raises:
        SettingsError: it is not one.
    """
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and low <= int(text) <= high):
        raise SettingsError(f"{option} {text!r} is not a whole number from {low} to {high}")
    return int(text)
