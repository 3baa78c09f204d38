"""What `fascicle up` keeps in its folder: authority, identities, configurations, credentials (docs/operations.md).

    DIR/pki/{ca.pem,ca.key.pem,workstation/,gateway/,node-1/,...}         DIR/credentials.json, administrator.json
    DIR/gateway/{gateway.toml,identity/,catalogue.db}
    DIR/nodes/node-1/{node.toml,identity/,objects/,incoming/}
    DIR/run/{up.lock,up.pid,gateway.pid,node-1.pid,...}         DIR/logs/*.log

Made on the first run and brought up to date on later ones: identities are renewed when they run out, ports are kept
while they are free, keys that a person added to a configuration are kept too. Identities are made in DIR/pki and copied
to their roles, so that a node whose folder is lost comes back as itself; a certificate that a running party has renewed
is taken over into DIR/pki first, so that none goes back to an older one. A node that was revoked is left where it is
and not started; a revoked workstation or administrator gets a new key. Refuses to do: starting anything, removing nodes
(what they hold may be the only copy).
"""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from fascicle.ports import Ports, join, port_of
from gateway.register import Record, Register
from transfer import credentials, keyfiles, pki
from transfer.durable import write_file_durably
from transfer.errors import SettingsError, StorageError

NODES_DEFAULT: Final = 5
REPLICAS_DEFAULT: Final = 1
LOOPBACK: Final = "127.0.0.1"
Table = dict[str, Any]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `fascicle up` was asked for. `port` 0: any free one.

    `nodes` None: as many as there are, at first 5; `replicas` None: as it was, at first 1.
    """

    data: Path
    nodes: int | None = None
    host: str = "127.0.0.1"
    port: int = 8443
    replicas: int | None = None
    plain: bool = False
    paper_port: int | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the cluster: `address` and `paper_address` ("" without) are `host:port`."""

    node_id: str
    address: str
    paper_address: str
    config: Path
    settings: str  # the configuration's text
    identity: Path  # its original in DIR/pki


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as it stands in its folder, ready to be started; its ports are held while this object lives."""

    url: str
    gateway_config: Path
    places: tuple[Place, ...]
    credentials: Path
    ports: tuple[Ports, ...]


def prepare(options: Options) -> Cluster:
    """Bring the folder to what `options` ask for.

    Raises:
        SettingsError: fewer nodes than there are, more replicas than nodes, a port in use, an authority that is gone,
            a folder that cannot be written.
    """
    data = _absolute(options.data)
    _refuse_another_authority(data)
    count = _node_count(data, options)
    ports = Ports(options.host)
    ports_inside = ports if options.host == LOOPBACK else Ports(LOOPBACK)  # metrics are plain text: never outside
    gateway_before = _read_config(data / "gateway/gateway.toml")
    gateway_port = _gateway_port(ports, options.port, gateway_before)
    heartbeat = join(options.host, ports.keep_or_choose(port_of(gateway_before.get("heartbeat_listen"))))
    record = Register(data / "gateway/register.json").record
    numbers = [number for number in range(1, count + 1) if f"node-{number}" not in record.revoked]
    _issue_identities(data, numbers, options.host, record)
    url = f"https://{join(options.host, gateway_port)}"
    places = tuple(
        _prepare_node(data, index, options, ports, ports_inside, url=url, heartbeat=heartbeat) for index in numbers
    )
    gateway = gateway_before | {
        "gateway_id": "gateway",
        "data": str(data / "gateway"),
        "identity": str(data / "gateway/identity"),
        "authority": str(data / "pki"),
        "listen": join(options.host, gateway_port),
        "heartbeat_listen": heartbeat,
        "plain": options.plain,
        "default_replicas": options.replicas or gateway_before.get("default_replicas", REPLICAS_DEFAULT),
        "node": [*(_gateway_entry(place, gateway_before) for place in places), *_others(gateway_before, count)],
    }
    _write_text(data / "gateway/gateway.toml", to_toml(gateway))
    for role, name in (("workstation", "credentials.json"), ("administrator", "administrator.json")):
        credentials.save(credentials.from_identity(url, data / "pki" / role), data / name)
    return Cluster(
        url=url,
        gateway_config=data / "gateway/gateway.toml",
        places=places,
        credentials=data / "credentials.json",
        ports=(ports, ports_inside),
    )


def restore(place: Place) -> None:
    """Put a node's configuration and identity back where they were lost with its folder.

    Raises:
        SettingsError: they cannot be written.
    """
    identity = place.config.parent / "identity"
    pki.take_newer(place.identity, _certificate_in(identity))
    pki.install(place.identity, identity)
    if not place.config.exists():
        _write_text(place.config, place.settings)


def _absolute(path: Path) -> Path:
    data = path.expanduser().resolve()
    try:
        str(data).encode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"{data!s}: the folder's name must be UTF-8, because configurations name it") from error
    return data


def _refuse_another_authority(data: Path) -> None:
    """A new one would end every certificate that was given, and put other keys over those that have signed."""
    if (data / "gateway/identity/certificate.pem").exists() and not (data / "pki/ca.pem").exists():
        raise SettingsError(
            f"{data}/pki/ca.pem is gone, by which the gateway of this folder and its nodes know each other: "
            "put the folder pki back, or use another --data"
        )


def _node_count(data: Path, options: Options) -> int:
    paths = [*data.glob("pki/node-*"), *data.glob("nodes/node-*")]  # what either has lost counts all the same
    known = (re.fullmatch(r"node-([1-9][0-9]{0,3})", path.name) for path in paths)
    present = max((int(match[1]) for match in known if match), default=0)
    count = options.nodes or present or NODES_DEFAULT
    if count < present:
        raise SettingsError(
            f"{data} has {present} nodes, which may hold the only copy of something: "
            f"ask for --nodes {present} or more, or use another folder"
        )
    if options.replicas and options.replicas > count:
        raise SettingsError(f"--replicas {options.replicas} needs as many nodes, and there are {count}")
    return count


def _gateway_port(ports: Ports, wanted: int, before: Table) -> int:
    return ports.claim(wanted) if wanted else ports.keep_or_choose(port_of(before.get("listen")))


def _issue_identities(data: Path, numbers: Sequence[int], host: str, record: Record) -> None:
    authority = pki.create_authority(data / "pki")
    hosts = {*pki.LOCAL_HOSTS, host}

    def ensure(name: str, role: pki.Role, names: set[str], in_use: bytes) -> Path:
        folder = data / "pki" / name
        pki.take_newer(folder, in_use)
        if not pki.is_current(folder, hosts=names) or _is_revoked(folder, record):
            pki.issue(authority, folder, name=name, role=role, hosts=sorted(names))
        return folder

    def install(name: str, role: pki.Role, identity: Path) -> None:
        pki.install(ensure(name, role, hosts, _certificate_in(identity)), identity)

    ensure("workstation", "workstation", set(), _certificate_of(data / "credentials.json"))
    ensure("administrator", "administrator", set(), _certificate_of(data / "administrator.json"))
    install("gateway", "gateway", data / "gateway/identity")
    for index in numbers:
        install(f"node-{index}", "node", data / f"nodes/node-{index}/identity")


def _certificate_in(identity: Path) -> bytes:
    """Return the certificate that a role uses, b"" if it has none."""
    path = identity / "certificate.pem"
    return keyfiles.read_file(path) if path.exists() else b""


def _certificate_of(path: Path) -> bytes:
    """Return the certificate in a credentials file, b"" where there is none: the file is written anew."""
    try:
        return credentials.load(path).certificate.encode()
    except SettingsError:
        return b""


def _is_revoked(identity: Path, record: Record) -> bool:
    """Tell whether the certificate was revoked: then this folder's party gets another, and who has the old one none."""
    certificate = pki.load_certificate(identity / "certificate.pem")
    return record.is_revoked(identity.name, int(certificate.not_valid_before_utc.timestamp()))


def _prepare_node(
    data: Path, index: int, options: Options, ports: Ports, ports_inside: Ports, *, url: str, heartbeat: str
) -> Place:
    node_id = f"node-{index}"
    folder = data / "nodes" / node_id
    before = _read_config(folder / "node.toml")

    def choose(key: str) -> str:
        return join(options.host, ports.keep_or_choose(port_of(before.get(key))))

    address = choose("listen")
    table = before | {
        "node_id": node_id,
        "data": str(folder),
        "identity": str(folder / "identity"),
        "listen": address,
        "advertise": address,
        "gateway_public_key": _signing_public_key(data / "pki/gateway"),
        "heartbeat": heartbeat,
        "gateway": url,
        "failure_domain": node_id,  # on one machine a node is the largest thing that can be lost alone
        "plain": options.plain,
        "metrics_listen": join(LOOPBACK, ports_inside.keep_or_choose(port_of(before.get("metrics_listen")))),
        "paper_listen": _paper_address(ports, options, index),
    }
    place = Place(
        node_id=node_id,
        address=address,
        paper_address=table["paper_listen"],
        config=folder / "node.toml",
        settings=to_toml(table),
        identity=data / "pki" / node_id,
    )
    _write_text(place.config, place.settings)
    return place


def _paper_address(ports: Ports, options: Options, index: int) -> str:
    if options.paper_port is None:
        return ""
    port = ports.claim(options.paper_port + index - 1) if options.paper_port else ports.keep_or_choose(None)
    return join(options.host, port)


def _gateway_entry(place: Place, before: Table) -> Table:
    """Return the gateway's entry of a node, with what a person added to it."""
    known: Table = next((entry for entry in before.get("node", []) if entry.get("node_id") == place.node_id), {})
    return known | {"node_id": place.node_id, "public_key": _signing_public_key(place.identity)}


def _others(before: Table, count: int) -> list[Table]:
    """Return the gateway's entries of nodes that are not this folder's: a person added them."""
    ours = {f"node-{number}" for number in range(1, count + 1)}
    return [entry for entry in before.get("node", []) if entry.get("node_id") not in ours]


def _signing_public_key(identity: Path) -> str:
    return pki.load_signing_key(identity).public_key().public_bytes_raw().hex()


def _read_config(path: Path) -> Table:
    """Return what stands in a configuration; before the first run nothing."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error


def _write_text(path: Path, text: str) -> None:
    try:
        write_file_durably(path, text.encode())
    except StorageError as error:
        raise SettingsError(f"{path}: cannot be written: {error.message}") from error


def to_toml(table: Table) -> str:
    """Write texts, whole numbers, truth values, fractions, and lists of tables of them, as TOML."""
    plain = [f"{key} = {_toml_value(value)}" for key, value in table.items() if not _is_tables(value)]
    tables = [f"\n[[{key}]]\n{to_toml(item)}" for key, value in table.items() if _is_tables(value) for item in value]
    return "\n".join([*plain, *tables, ""])


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _toml_value(value: object) -> str:
    """A JSON text, number, truth value or list of them is a TOML one, apart from DEL, which JSON leaves as it is."""
    if not isinstance(value, str | int | float | list):
        raise SettingsError(f"a configuration has a value that `up` cannot write again: {value!r}")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
