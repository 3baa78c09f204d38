"""results.json: everything that was measured, written anew after each run, so that an end at any time leaves it whole.

    {"format": 2, "complete": false, "ended": "interrupted", "started", "finished", "machine": {...},
     "options": {...}, "skipped": [{"peer", "reason"}], "links": {profile: {...}}, "runs": [{...}]}

Each run has profile, peer, nodes (0: it has none to vary), run (from 0), order, seed, calibration, and either `error`
or the figures of `experiments.measure`. Refuses to do: judging them.
"""

import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from transfer.errors import SettingsError, StorageError

FORMAT: Final = 2
NAME: Final = "results.json"
Results = dict[str, Any]
Run = dict[str, Any]


def new(machine: dict[str, Any], options: dict[str, Any], skipped: list[dict[str, str]]) -> Results:
    """Return results without a run."""
    return {
        "format": FORMAT,
        "complete": False,
        "ended": "",
        "started": now(),
        "finished": "",
        "machine": machine,
        "options": options,
        "skipped": skipped,
        "links": {},
        "runs": [],
    }


def save(results: Results, folder: Path) -> None:
    """Write `results` into `folder`, which is made: whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = folder / f"{NAME}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(results, indent=1) + "\n")
        os.replace(temporary, folder / NAME)
    except OSError as error:
        raise StorageError(f"{folder}: results cannot be written: {error.strerror}") from error


def forget(folder: Path) -> None:
    """Remove results without a run, and the folder if nothing else is in it."""
    (folder / NAME).unlink()
    with contextlib.suppress(OSError):  # not empty
        folder.rmdir()


def load(folder: Path) -> Results:
    """Read the results in `folder`.

    Raises:
        SettingsError: there are none, or they are not ours.
    """
    path = folder / NAME
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON: {error}") from error
    if not isinstance(results, dict) or results.get("format") != FORMAT or not new({}, {}, []).keys() <= results.keys():
        raise SettingsError(f"{path}: not results of format {FORMAT}")
    return results


def good(results: Results) -> list[Run]:
    """Return the runs that came to their end."""
    return [run for run in results["runs"] if "error" not in run]


def now() -> str:
    """Return the time as a report writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
