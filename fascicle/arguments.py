"""The command line's grammar (design section 12): commands, options, and which values make sense.

A nonsensical value is a `SettingsError` before any work is done. Refuses to do: work, and imports beyond the standard
library, the errors and other grammars, because every command pays for them at start.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from experiments.arguments import add_report, add_resume, add_run, add_stat
from fascicle.member_arguments import add_members
from fascicle.pool_arguments import add_pools
from transfer.errors import SettingsError

CONGESTION: Final = ("auto", "bbr", "cubic")
PRIORITIES: Final = ("stat", "routine", "background")
NODES_MAX: Final = 1024  # api.OpenTransfer
FLOWS_MAX: Final = 256
REPLICAS_MAX: Final = 16
UP_NODES_MAX: Final = 256  # processes on one machine
UID: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")  # PS3.5 9.1
OBJECT_ID: Final = re.compile(r"[0-9a-f]{64}")


class Parser(argparse.ArgumentParser):
    """A parser that raises our error in place of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(f"{message} (see `{self.prog} --help`)")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class _Version(argparse.Action):
    """Look the version up only when it is asked for: reading the installed metadata takes longer than parsing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the version and end."""
        from importlib.metadata import version  # noqa: PLC0415  # slow to import, seldom asked

        print(f"fascicle {version('fascicle')}")
        parser.exit()


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def auto_or_whole(low: int, high: int) -> Callable[[str], int | None]:
    """Return a reader of `auto` (None) or a whole number from `low` to `high`."""
    number = whole(low, high)
    return lambda text: None if text == "auto" else number(text)


def matching(pattern: re.Pattern[str], what: str, length_max: int) -> Callable[[str], str]:
    """Return a reader of texts that match `pattern` as a whole."""

    def read(text: str) -> str:
        if len(text) > length_max or not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return read


def host(text: str) -> str:
    """Read the host that other parties reach this one by."""
    if text in ("", "0.0.0.0", "::", "*"):
        raise argparse.ArgumentTypeError("name the address that others reach this machine by, not every address")
    if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither an address nor a host name")
    return text


def make_parser() -> Parser:
    """Return the parser of the whole command; `command` and `action` in its result name what to run."""
    parser = Parser(
        prog="fascicle",
        description="Moves DICOM images from where they are made to where they are kept: in parallel, exactly.",
        epilog="Exit codes: 0 all done, 1 some objects failed, 2 usage or configuration, 3 unreachable after retries.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_up, _add_send, _add_get, _add_verify, _add_status):
        add(commands)
    _add_serving(commands, "agent", "run", "the workstation's daemon: watched folders, C-STORE SCP, durable queue")
    _add_rebuild(_add_serving(commands, "gateway", "serve", "the gateway: transfers, placement, catalogue"))
    _add_serving(commands, "node", "serve", "a storage node")
    _add_experiment(commands)
    add_pools(_add(commands, "xen", "make and keep the machines of storage nodes at a XenServer pool"), whole=whole)
    add_members(lambda name, text: _add(commands, name, text), host=host, whole=whole)
    return parser


def _add(commands: Commands, name: str, text: str) -> Parser:
    return commands.add_parser(name, help=text, description=text, allow_abbrev=False)


def _add_up(commands: Commands) -> None:
    parser = _add(commands, "up", "run a whole cluster on this machine, one process per role, supervised")
    port = whole(0, 65_535)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where everything is kept")
    parser.add_argument("--nodes", type=whole(1, UP_NODES_MAX), metavar="N", help="default: as it was, at first 5")
    parser.add_argument("--host", type=host, default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=port, default=8443, help="of the gateway; 0: any free; default: %(default)s")
    parser.add_argument("--replicas", type=whole(1, REPLICAS_MAX), metavar="R", help="default: as it was, at first 1")
    parser.add_argument("--plain", action="store_true", help="data plane without TLS, for measurements")
    parser.add_argument("--paper-port", type=port, metavar="P", help="node 1 takes the paper's protocol at P, 2 at P+1")


def _add_send(commands: Commands) -> None:
    parser = _add(commands, "send", "send files and folders, and wait until they are durable")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="DICOM files, or folders of them")
    _add_to(parser)
    parser.add_argument(
        "--encoding",
        default="auto",
        metavar="NAME",
        help="auto: the best by measurement; or raw, zstd, htj2k, jpegls, jxl-3 ... (docs/encodings.md)",
    )
    parser.add_argument("--flows", type=auto_or_whole(1, FLOWS_MAX), metavar="auto|N", help="TCP connections")
    parser.add_argument("--nodes", type=auto_or_whole(1, NODES_MAX), metavar="auto|N", help="storage nodes to use")
    parser.add_argument("--replicas", type=whole(1, REPLICAS_MAX), metavar="R", help="default: the cluster's")
    parser.add_argument("--congestion", choices=CONGESTION, default="auto", help="default: %(default)s")
    parser.add_argument(
        "--rate", default="unlimited", metavar="TIMETABLE", help='such as 20Mbit/s, or "mon-fri 07:00-19:00 20Mbit/s"'
    )
    parser.add_argument(
        "--workers", type=whole(1, 64), metavar="N", help="encoders at once, which give way; default: one a processor"
    )
    parser.add_argument("--priority", choices=PRIORITIES, default="routine", help="default: %(default)s")
    parser.add_argument("--any-file", action="store_true", help="send what is not DICOM, too")
    _add_json(parser)


def _add_get(commands: Commands) -> None:
    parser = _add(commands, "get", "fetch originals, bit for bit")
    uid = matching(UID, "a DICOM UID", 64)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", type=uid, metavar="UID", help="Study Instance UID")
    what.add_argument("--series", type=uid, metavar="UID", help="Series Instance UID")
    what.add_argument("--object", type=matching(OBJECT_ID, "an object id (64 hex digits)", 64), metavar="ID")
    what.add_argument("--all", action="store_true", help="everything stored")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    _add_to(parser)
    _add_json(parser)


def _add_verify(commands: Commands) -> None:
    parser = _add(commands, "verify", "check that everything in the catalogue is stored")
    _add_to(parser)
    parser.add_argument("--deep", action="store_true", help="re-read every byte and check its digest")
    _add_json(parser)


def _add_status(commands: Commands) -> None:
    parser = _add(commands, "status", "show nodes, space and transfers")
    _add_to(parser)
    _add_json(parser)
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")


def _add_serving(commands: Commands, name: str, action: str, text: str) -> Commands:
    actions = _add(commands, name, text).add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_config(_add(actions, action, text))
    return actions


def _add_config(parser: Parser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML; see docs/operations.md")


def _add_rebuild(actions: Commands) -> None:
    parser = _add(actions, "rebuild", "make the catalogue anew from what the nodes hold, while they serve")
    _add_config(parser)
    parser.add_argument("--keep-aside", action="store_true", help="set a catalogue that is there aside, when done")
    parser.add_argument(
        "--without", action="append", default=[], metavar="NODE", help="do without this node; its objects are left out"
    )
    parser.add_argument(
        "--without-unreadable", action="store_true", help="leave out what is in folders that a node cannot read"
    )
    parser.add_argument(
        "--wait", type=whole(1, 86_400), default=60, metavar="S", help="for a node to answer; default: %(default)s"
    )
    _add_json(parser)


def _add_experiment(commands: Commands) -> None:
    tasks = _add(commands, "experiment", "compare with FTP and others over link profiles").add_subparsers(
        dest="task", required=True, metavar="run|report|resume|stat"
    )
    add_run(_add(tasks, "run", "measure over the links PROFILE..., and write results, table and plots"))
    add_report(_add(tasks, "report", "make table and plots of earlier results again"))
    add_resume(_add(tasks, "resume", "measure what a cut link, or a killed sender, sends a second time"))
    add_stat(_add(tasks, "stat", "measure how fast an urgent study overtakes a running bulk transfer"))


def _add_to(parser: Parser) -> None:
    parser.add_argument("--to", type=Path, required=True, metavar="CREDENTIALS", help="the file that `up` writes")


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
