"""The `fascicle` command: reads the command line, runs one command, turns errors into exit codes (design section 12).

Each command's module is imported only when it is the one to run, because a node's start pays for every import. An
error of ours is one line on standard error (with `--json` also one object on standard output); anything else is a
fault of ours and shows its traceback.
"""

# ruff: noqa: PLC0415  (the late imports that the docstring speaks of)
import argparse
import io
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fascicle.arguments import make_parser
from transfer.errors import FascicleError
from transfer.printable import printable

INTERRUPTED: Final = 130  # as shells report a process that SIGINT ended
FAULT: Final = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's own) names, and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    try:
        code = _run(words)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        return _report(error, as_json="--json" in words)
    return code


def _run(words: list[str]) -> int:
    arguments = make_parser().parse_args(words)
    from transfer import log

    serving = getattr(arguments, "action", None) is not None
    log.configure(role=arguments.command, level=os.environ.get("FASCICLE_LOG_LEVEL", "info" if serving else "warning"))
    return COMMANDS[arguments.command](arguments)


def _up(arguments: argparse.Namespace) -> int:
    from fascicle import up

    options = up.Options(
        data=arguments.data,
        nodes=arguments.nodes,
        host=arguments.host,
        port=arguments.port,
        replicas=arguments.replicas,
        plain=arguments.plain,
        paper_port=arguments.paper_port,
    )
    up.run(options)
    return 0


def _send(arguments: argparse.Namespace) -> int:
    from transfer.encodings import get_encoding

    if arguments.encoding != "auto":
        get_encoding(arguments.encoding)
    from agent import send

    return send.run(
        paths=arguments.paths,
        credentials=arguments.to,
        encoding=arguments.encoding,
        flows=arguments.flows,
        nodes=arguments.nodes,
        replicas=arguments.replicas,
        congestion=arguments.congestion,
        priority=arguments.priority,
        rate=arguments.rate,
        workers=arguments.workers,
        any_file=arguments.any_file,
        as_json=arguments.json,
    )


def _get(arguments: argparse.Namespace) -> int:
    from agent import get

    return get.run(
        out=arguments.out,
        credentials=arguments.to,
        study=arguments.study,
        series=arguments.series,
        object_id=arguments.object,
        everything=arguments.all,
        as_json=arguments.json,
    )


def _verify(arguments: argparse.Namespace) -> int:
    from agent import verify

    return verify.run(credentials=arguments.to, deep=arguments.deep, as_json=arguments.json)


def _status(arguments: argparse.Namespace) -> int:
    from agent import status

    return status.run(credentials=arguments.to, as_json=arguments.json, watch=arguments.watch)


def _agent(arguments: argparse.Namespace) -> int:
    from agent import daemon

    daemon.run(arguments.config)
    return 0


def _gateway(arguments: argparse.Namespace) -> int:
    if arguments.action == "rebuild":
        from fascicle import rebuild

        return rebuild.run(arguments)
    from gateway import service

    service.serve(arguments.config)
    return 0


def _node(arguments: argparse.Namespace) -> int:
    from nodes import service

    service.serve(arguments.config)
    return 0


def _experiment(arguments: argparse.Namespace) -> int:
    from experiments import command

    tasks = {"run": command.run, "report": command.report, "resume": command.resume, "stat": command.stat}
    return tasks[arguments.task](arguments)


def _member(arguments: argparse.Namespace) -> int:
    from fascicle import members

    return members.run(arguments)


def _upkeep(arguments: argparse.Namespace) -> int:
    from fascicle import upkeep

    return upkeep.run(arguments)


def _xen(arguments: argparse.Namespace) -> int:
    from fascicle import pools

    return pools.run(arguments)


COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "up": _up,
    "send": _send,
    "get": _get,
    "verify": _verify,
    "status": _status,
    "agent": _agent,
    "gateway": _gateway,
    "node": _node,
    "experiment": _experiment,
    "xen": _xen,
    "drain": _upkeep,
    "trash": _upkeep,
    **dict.fromkeys(("init", "invite", "enroll", "revoke", "renew", "rotate-keys", "parties", "audit"), _member),
}


def _report(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong, in the way that fits it, and return the exit code."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    ours = [leaf for leaf in leaves if isinstance(leaf, FascicleError)]
    if len(ours) == len(leaves):
        worst = max(ours, key=lambda leaf: leaf.exit_code)
        print(f"fascicle: {printable(' '.join(worst.message.split()))}", file=sys.stderr)
        return _end(worst.exit_code, worst.code, worst.message, as_json=as_json)
    if all(isinstance(leaf, BrokenPipeError) for leaf in leaves) and _stdout_is_gone():
        return FAULT
    for line in "".join(traceback.format_exception(error)).splitlines():
        print(printable(line), file=sys.stderr)  # it may hold a peer's words, too
    return _end(FAULT, FascicleError.code, repr(error), as_json=as_json)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _end(exit_code: int, code: str, message: str, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": {"code": code, "message": message, "exit_code": exit_code}}), flush=True)
    return exit_code


def _stdout_is_gone() -> bool:
    """Tell whether whoever read our output has gone; what is left of it then goes nowhere, without a complaint."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors and hang-ups are always reported
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
