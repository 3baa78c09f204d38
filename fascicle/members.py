"""The commands of membership: init, invite, enroll, revoke, renew, rotate-keys, parties, audit (design section 12).

Each prints one line for people or, with `--json`, one object. Refuses to do: what they say (`fascicle.initial`,
`fascicle.enrolling`, and the gateway).
"""

import argparse
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio

from agent.renewal import renew
from fascicle import enrolling, initial
from transfer import credentials, pki, settings
from transfer.errors import SettingsError
from transfer.joining import JoiningClient, Token, encode_token
from transfer.membership import Done, Invite, Parties

T = TypeVar("T")
PATIENCE_S: Final = 10.0


def run(arguments: argparse.Namespace) -> int:
    """Run the command that `arguments` name; returns 0, or raises an error of ours."""
    answer, line = _COMMANDS[arguments.command](arguments)
    print(msgspec.json.encode(answer).decode() if arguments.json else line)
    return 0


def _init(arguments: argparse.Namespace) -> tuple[Any, str]:
    made = initial.prepare(
        initial.Options(
            data=arguments.data,
            host=arguments.host,
            port=arguments.port,
            heartbeat_port=arguments.heartbeat_port,
            listen=arguments.listen,
            replicas=arguments.replicas,
        )
    )
    return made, (
        f"start the gateway: fascicle gateway serve --config {made.config}\n"
        f"invite a node:     fascicle invite node-1 --role node --host ADDRESS --to {made.administrator}\n"
        f"keep it safe:      {made.authority_key} decides who takes part"
    )


def _invite(arguments: argparse.Namespace) -> tuple[Any, str]:
    if arguments.role == "node" and not arguments.host:
        raise SettingsError("a node needs --host: the address or name that others reach it by (it may be repeated)")
    wish = Invite(name=arguments.name, role=arguments.role, hosts=arguments.host or [], life_s=arguments.minutes * 60.0)
    invitation = _ask(arguments.to, lambda client: client.invite(wish))
    gateway = credentials.load(arguments.to).gateway
    token = encode_token(
        Token(gateway=gateway, authority_sha256=invitation.authority_sha256, role=wish.role, secret=invitation.secret)
    )
    return {"name": wish.name, "role": wish.role, "token": token, "expires_at_s": invitation.expires_at_s}, token


def _enroll(arguments: argparse.Namespace) -> tuple[Any, str]:
    options = enrolling.Options(
        token=sys.stdin.readline() if arguments.token == "-" else arguments.token,  # noqa: S105  # no secret: where one is
        data=arguments.data,
        listen=arguments.listen or "",
        advertise=arguments.advertise or "",
        failure_domain=arguments.failure_domain or "",
    )
    joined = trio.run(enrolling.join_cluster, options)
    return joined, f"{joined.name} is enrolled as {joined.role}: {joined.use}"


def _revoke(arguments: argparse.Namespace) -> tuple[Any, str]:
    name = arguments.name

    async def revoke(client: JoiningClient) -> tuple[Done, bool]:
        enrolled = {each.name for each in (await client.parties()).parties if each.role}
        return await client.revoke(name), name in enrolled

    done, known = _ask(arguments.to, revoke)
    doubt = (
        ""
        if known
        else "\nnobody of that name was enrolled here: is it the right one? see `fascicle parties` and `status`"
    )
    return done, f"{name} is revoked: at the gateway now, at nodes within 10 seconds{doubt}"


def _renew(arguments: argparse.Namespace) -> tuple[Any, str]:
    trio.run(partial(renew, arguments.to, patience_s=PATIENCE_S))
    return Done(), f"{arguments.to} is renewed"


def _rotate(arguments: argparse.Namespace) -> tuple[Any, str]:
    done = _ask(arguments.to, lambda client: client.rotate_keys(revoke_tickets=arguments.revoke_tickets))
    ended = "; every ticket before it is revoked" if arguments.revoke_tickets else ""
    return done, f"tickets get a new key{ended}"


def _parties(arguments: argparse.Namespace) -> tuple[Any, str]:
    parties: Parties = _ask(arguments.to, lambda client: client.parties())
    rows = (f"{each.name}  {each.role or '-'}  {'revoked' if each.revoked else 'good'}" for each in parties.parties)
    return parties, "\n".join(rows)


def _audit(arguments: argparse.Namespace) -> tuple[Any, str]:
    if arguments.task == "anchor":
        if arguments.to is None:
            raise SettingsError("say whom to ask: --to CREDENTIALS of an operator or administrator")
        head = _ask(arguments.to, lambda client: client.audit_head())
        return head, f"{head.count}:{head.hash}"
    if arguments.config is None:
        raise SettingsError("say whose trail to check: --config gateway.toml, on the gateway's machine")
    from gateway import audit, trail  # noqa: PLC0415  # the gateway's libraries, for this command alone
    from gateway.settings import GatewaySettings  # noqa: PLC0415  # as above

    config = settings.load(GatewaySettings, arguments.config)
    key = pki.load_signing_key(Path(config.identity)).public_key()
    end = audit.verify(Path(config.data), key, [trail.read_anchor(anchor) for anchor in arguments.anchor or []])
    return end, f"{end.count} lines, all sound; the trail ends at {end}"


def _ask(path: Path, question: Callable[[JoiningClient], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with JoiningClient(credentials.load(path), patience_s=PATIENCE_S) as client:
            return await question(client)

    return trio.run(ask)


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], tuple[Any, str]]]] = {
    "init": _init,
    "invite": _invite,
    "enroll": _enroll,
    "revoke": _revoke,
    "renew": _renew,
    "rotate-keys": _rotate,
    "parties": _parties,
    "audit": _audit,
}
