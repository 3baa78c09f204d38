"""The grammar of membership's commands (`fascicle.members`). Refuses to do: work."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROLES: Final = ("node", "workstation", "operator", "administrator")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
Reader = Callable[[str], Any]


def add_members(add: Callable[[str, str], Any], *, host: Reader, whole: Callable[[int, int], Reader]) -> None:
    """Add the commands; `add` makes the parser of one, the others read a value."""
    _add_init(add("init", "make authority, gateway and administrator of several machines"), host, whole)
    _add_invite(add("invite", "make a token by which one party may enroll, once"), host, whole)
    _add_enroll(add("enroll", "join a cluster with a token; keys are made here"))
    revoke = add("revoke", "end every certificate of a party")
    revoke.add_argument("name", type=_name, metavar="NAME")
    rotate = add("rotate-keys", "sign tickets with a new key; nothing that runs is ended")
    rotate.add_argument("--revoke-tickets", action="store_true", help="end every ticket and flow of now, too")
    renew = add("renew", "renew the certificate of a credentials file")
    parties = add("parties", "list who was enrolled or revoked")
    _add_audit(add("audit", "check the gateway's audit trail, or print where it ends"))
    drain = add("drain", "copy what a node holds to others, so that it can be taken away")
    drain.add_argument("name", type=_name, metavar="NODE")
    drain.add_argument("--undo", action="store_true", help="let it take objects again")
    trash = add("trash", "list what nodes put aside, put it back, delete it; or put orphans aside")
    _add_trash(trash)
    for parser in (revoke, rotate, renew, parties, drain, trash):
        _add_to(parser)
        _add_json(parser)


def _add_init(parser: Any, host: Reader, whole: Callable[[int, int], Reader]) -> None:
    port = whole(1, 65_535)  # all others are told it once
    parser.add_argument("data", type=Path, metavar="DIR", help="an empty folder of the gateway's machine")
    parser.add_argument("--host", type=host, required=True, help="how all others reach the gateway")
    parser.add_argument("--port", type=port, default=8443, help="default: %(default)s")
    parser.add_argument("--heartbeat-port", type=port, default=8444, help="UDP; default: %(default)s")
    parser.add_argument("--listen", default="0.0.0.0", metavar="ADDRESS", help="default: every address")
    parser.add_argument("--replicas", type=whole(1, 16), default=2, metavar="R", help="default: %(default)s")
    _add_json(parser)


def _add_invite(parser: Any, host: Reader, whole: Callable[[int, int], Reader]) -> None:
    parser.add_argument("name", type=_name, metavar="NAME")
    parser.add_argument("--role", choices=ROLES, required=True)
    parser.add_argument("--host", type=host, action="append", help="a node's address or name; may be repeated")
    parser.add_argument("--minutes", type=whole(1, 1440), default=15, help="the token's life; default: %(default)s")
    _add_to(parser)
    _add_json(parser)


def _add_enroll(parser: Any) -> None:
    parser.add_argument("--token", required=True, help="what `fascicle invite` printed; -: read it")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where keys and configuration are kept")
    parser.add_argument("--listen", metavar="HOST:PORT", help="of a node")
    parser.add_argument("--advertise", metavar="HOST:PORT", help="of a node, where others reach it differently")
    parser.add_argument("--failure-domain", metavar="NAME", help="of a node: what it shares its fate with")
    _add_json(parser)


def _add_trash(parser: Any) -> None:
    parser.add_argument("task", choices=("list", "undo", "purge", "orphans"))
    parser.add_argument("--node", type=_name, metavar="NODE", help="of this node alone")
    parser.add_argument("--object", type=_object_id, action="append", default=[], metavar="ID", help="may be repeated")
    parser.add_argument("--all", action="store_true", help="undo, purge: everything")


def _object_id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an object id (64 hex digits)")
    return text


def _add_audit(parser: Any) -> None:
    parser.add_argument("task", choices=("verify", "anchor"))
    parser.add_argument("--config", type=Path, metavar="FILE", help="verify: the gateway's configuration")
    parser.add_argument("--anchor", action="append", metavar="COUNT:HASH", help="verify: kept elsewhere")
    parser.add_argument("--to", type=Path, metavar="CREDENTIALS", help="anchor: such as administrator.json")
    _add_json(parser)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: a-z, 0-9, dots and hyphens, at most 64")
    return text


def _add_to(parser: Any) -> None:
    parser.add_argument("--to", type=Path, required=True, metavar="CREDENTIALS", help="such as administrator.json")


def _add_json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
