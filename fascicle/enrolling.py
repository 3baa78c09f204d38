"""`fascicle enroll`: a party joins with its token; keys are made here and never leave.

    node          DIR/node.toml, DIR/identity/       then `fascicle node serve --config DIR/node.toml`
    others        DIR/credentials.json, DIR/identity/

A folder that was enrolled before gets another identity beside the first (identity-2, ...), so that a key is replaced in
one step; what a person wrote into node.toml stays. Refuses to do: starting anything, using a token twice (the
gateway's doing).
"""

import itertools
import tomllib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from fascicle.layout import Table, to_toml
from fascicle.ports import join
from transfer import addresses, credentials, enrolment, joining, pki
from transfer.durable import write_file_durably
from transfer.errors import FascicleError, SettingsError
from transfer.joining import Token
from transfer.membership import Enrol, Enrolled

NODE_FILE: Final = "node.toml"
EVERY_ADDRESS: Final = ("0.0.0.0", "::")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `fascicle enroll` was asked for; the addresses are a node's."""

    token: str
    data: Path
    listen: str = ""
    advertise: str = ""
    failure_domain: str = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What was made: `use` is the file to go on with."""

    name: str
    role: str
    gateway: str
    use: str


async def join_cluster(options: Options) -> Joined:
    """Enrol, and write what the party needs.

    Raises:
        SettingsError: not a token, a folder that cannot be written, a node without an address that others can be told.
        UnauthorisedError, UnreachableError: see `transfer.joining`.
    """
    token = joining.decode_token(options.token)
    data = options.data.expanduser().resolve()
    before: Table = {}
    if token.role == "node":  # all of this before the token is used up
        before = _read(data / NODE_FILE)
        _check_addresses(options.listen, _advertised(options, before))
    authority = await joining.fetch_authority(token)
    identity = _new_identity(data)
    _write(identity / "ca.pem", authority, pki.PUBLIC)
    request = enrolment.make_request(identity)
    enrolled = await joining.enrol(token, authority, _wish(token, request, identity, is_node=token.role == "node"))
    _write(identity / "certificate.pem", enrolled.certificate, pki.PUBLIC)
    if enrolled.role == "node":
        use = data / NODE_FILE
        table = _node_table(options, enrolled, token.gateway, identity, before)
        _write(use, to_toml(before | table), 0o640)
    else:
        use = data / "credentials.json"
        credentials.save(credentials.from_identity(token.gateway, identity), use)
    return Joined(name=enrolled.name, role=enrolled.role, gateway=token.gateway, use=str(use))


def _wish(token: Token, request: str, identity: Path, *, is_node: bool) -> Enrol:
    if not is_node:
        return Enrol(secret=token.secret, request=request)
    pki.ensure_signing_key(identity)
    key = pki.load_signing_key(identity)
    public_key = key.public_key().public_bytes_raw().hex()
    return Enrol(secret=token.secret, request=request, public_key=public_key, proof=enrolment.prove(request, key))


def _new_identity(data: Path) -> Path:
    names = itertools.chain(["identity"], (f"identity-{number}" for number in itertools.count(2)))
    folder = next(data / name for name in names if not (data / name / "certificate.pem").exists())
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be made: {error.strerror}") from error
    return folder


def _check_addresses(listen: str, advertise: str) -> None:
    addresses.parse(listen or "--listen HOST:PORT, which a node needs")
    if addresses.parse(advertise).host in EVERY_ADDRESS:
        raise SettingsError(
            f"others cannot be told to connect to {advertise}: say --advertise HOST:PORT, where they reach this machine"
        )


def _advertised(options: Options, before: Table) -> str:
    """Return where others reach the node: what stood there stays, where it was not the address that is listened on."""
    kept = before.get("advertise", "")
    return options.advertise or (options.listen if kept in ("", before.get("listen")) else kept)


def _failure_domain(options: Options, name: str, before: Table) -> str:
    """Return what the node shares its fate with: what stood there stays, where it was not the node itself."""
    kept = before.get("failure_domain", "")
    return options.failure_domain or (name if kept in ("", before.get("node_id")) else kept)


def _node_table(options: Options, enrolled: Enrolled, gateway: str, identity: Path, before: Table) -> Table:
    host = urlsplit(gateway).hostname or ""
    return {
        "node_id": enrolled.name,
        "data": str(identity.parent),
        "identity": str(identity),
        "listen": options.listen,
        "advertise": _advertised(options, before),
        "gateway_public_key": enrolled.gateway_public_key,
        "heartbeat": join(host, enrolled.heartbeat_port),
        "gateway": gateway,
        "failure_domain": _failure_domain(options, enrolled.name, before),
        "plain": enrolled.plain,
    }


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error


def _write(path: Path, text: str, mode: int) -> None:
    try:
        write_file_durably(path, text.encode(), mode)
    except FascicleError as error:
        raise SettingsError(f"{path}: cannot be written: {error.message}") from error
