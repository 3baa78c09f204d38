"""Load on the real system: `python -m tests.load NAME [--seed S] [--out FOLDER]`; `make load` runs all.

    idle      10 000 connections that say nothing, at each port
    overload  ten times as many senders, callers and associations as there are places for
    restart   from kill -9 to serving again

Prints one JSON object and exits with 1 when something that is wanted is not so. Ratios are of one run on one machine.
"""

import argparse
import json
import logging
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from tests.load import idle, overload, restart
from tests.load.results import Results

LOADS: Final[dict[str, Callable[..., None]]] = {"idle": idle.run, "overload": overload.run, "restart": restart.run}
LONG: Final[dict[str, dict[str, Any]]] = {
    "idle": {"count": 10_000, "window_s": 15.0, "ports": "node+gateway+agent"},
    "overload": {"repeats": 3, "window_s": 15.0, "ports": "node+gateway+agent"},
    "restart": {"restarts": 100, "objects": 100_000, "spooled": 500},
}
SHORT: Final[dict[str, dict[str, Any]]] = {
    "idle": {"count": 1200, "window_s": 0.3, "ports": "node+agent"},
    "overload": {"repeats": 1, "window_s": 2.0, "ports": "gateway"},
    "restart": {"restarts": 2, "objects": 200, "spooled": 20},
}


def main(words: list[str]) -> int:
    """Run one load."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("name", choices=list(LOADS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="small and quick, to see that it works")
    parser.add_argument("--with", dest="changed", action="append", default=[], metavar="SIZE=VALUE")
    parser.add_argument("--out", default="", help="keep a results file in this folder")
    chosen = parser.parse_args(words)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sizes = dict((SHORT if chosen.short else LONG)[chosen.name])
    for key, _, value in (each.partition("=") for each in chosen.changed):
        sizes[key] = type(sizes[key])(value)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the parts are stopped
    results = Results(chosen.name, chosen.seed, figures={"sizes": sizes})
    try:
        with tempfile.TemporaryDirectory(prefix="fascicle-load-") as folder:
            LOADS[chosen.name](results, Path(folder), **sizes)
    except BaseException as error:  # what was measured until then is kept, too
        results.problems.append(f"did not finish: {error!r}"[:300])
        traceback.print_exception(error)
    result = results.result()
    if chosen.out:
        result["kept"] = str(results.keep(Path(chosen.out), vars(chosen)))
    print(json.dumps(result))
    return 1 if results.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
