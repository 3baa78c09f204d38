"""`fascicle gateway rebuild` as people and programs see it: progress on a terminal, then one summary.

Refuses to do: the work (`gateway.rebuild`).
"""

import argparse
import sys
import time
from typing import Any, Final

import msgspec

from gateway.rebuild import Options, Progress, rebuild
from transfer.log import get_logger

ON_TERMINAL_S: Final = 0.5
IN_LOG_S: Final = 30.0


def run(arguments: argparse.Namespace) -> int:
    """Make the catalogue anew; return the exit code: 1 when an object is, or may be, left without a sound copy.

    Raises:
        FascicleError: as `gateway.rebuild.rebuild`.
    """
    options = Options(
        config=arguments.config,
        keep_aside=arguments.keep_aside,
        without=tuple(arguments.without),
        without_unreadable=arguments.without_unreadable,
        wait_s=arguments.wait,
    )
    summary = rebuild(options, Teller(on_terminal=sys.stderr.isatty() and not arguments.json).tell)
    if arguments.json:
        print(msgspec.json.encode(summary).decode())
    else:
        print("\n".join(lines(summary)))
    return 1 if summary["lost"] or summary["unlisted"] else 0


class Teller:
    """Tells how far it is, now and then."""

    def __init__(self, *, on_terminal: bool) -> None:
        self._on_terminal = on_terminal
        self._every_s = ON_TERMINAL_S if on_terminal else IN_LOG_S
        self._told_s = time.monotonic()

    def tell(self, now: Progress) -> None:
        """Take in how far it is."""
        if time.monotonic() - self._told_s < self._every_s:
            return
        self._told_s = time.monotonic()
        if self._on_terminal:
            print(
                f"\r{now.objects} objects, {now.copies} of about {now.copies_expected} copies", end="", file=sys.stderr
            )
        else:
            get_logger().info("rebuild_progress", objects=now.objects, copies=now.copies, expected=now.copies_expected)


def lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary for people."""
    found = [
        f"{summary['objects']} objects in {summary['studies']} studies, {summary['replicas']} replicas on "
        f"{len(summary['copies'])} nodes, in {summary['seconds']:.1f} s"
    ]
    found += [f"left out: what only {node_id} holds" for node_id in summary["without"]]
    found += [f"left out: what only folder {one['folder']} of {one['node']} holds" for one in summary["unlisted"]]
    for kind in ("damaged", "unreadable"):
        found += [f"{kind}: {entry['object']} on {entry['node']}" for entry in summary[kind]]
    return [*found, *(f"lost: no sound copy of {object_id}" for object_id in summary["lost"])]
