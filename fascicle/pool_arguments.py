"""The grammar of `fascicle xen` (`fascicle.pools`). Refuses to do: work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Reader = Callable[[str], Any]


def add_pools(parser: Any, *, whole: Callable[[int, int], Reader]) -> None:
    """Add the tasks."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    plan = _add(tasks, "plan", "print what apply would do, and do nothing")
    apply = _add(tasks, "apply", "make the pool as the file says")
    for each in (plan, apply):
        each.add_argument("--upgrade", action="store_true", help="replace nodes of another revision, one by one")
    _add(tasks, "reconcile", "keep it as the file says, until it is stopped")
    _add(tasks, "status", "list hosts and nodes")
    scale = _add(tasks, "scale", "make it this many nodes, and write the number into the file")
    scale.add_argument("count", type=whole(0, 9999), metavar="N")
    drain = _add(tasks, "drain", "empty and remove nodes, or free a host for maintenance")
    drain.add_argument("name", nargs="*", metavar="NODE", help="these nodes; others are made in their place by apply")
    drain.add_argument("--host", metavar="HOST", help="move every node off this host, which takes no more of them")
    drain.add_argument("--undo", action="store_true", help="with --host: let the host take nodes again")
    snapshot = _add(tasks, "snapshot", "make a snapshot of nodes' disks")
    snapshot.add_argument("name", nargs="+", metavar="NODE")
    snapshot.add_argument("--label", required=True, help="what the snapshot is called")
    destroy = _add(tasks, "destroy", "drain and remove every node, as far as nothing is lost")
    destroy.add_argument("--yes", action="store_true", help="without this, only the plan is printed")
    destroy.add_argument("--with-data", action="store_true", help="do not drain: all that the nodes hold is lost")


def _add(tasks: Any, name: str, text: str) -> Any:
    parser = tasks.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("--pool", type=Path, required=True, metavar="FILE", help="TOML; see docs/xen.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
