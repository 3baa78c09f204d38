"""Makes of a cluster's folder, prepared for one machine, one whose machines each have an address of their own.

Refuses to do: networks (`tests.faults.real.cluster.nets`).
"""

import tomllib
from pathlib import Path
from typing import Any, Final

from fascicle import layout
from fascicle.ports import join, port_of
from transfer import credentials, pki

WORKSTATION: Final = "workstation"


def certify(data: Path, addresses: dict[str, str]) -> None:
    """Make the identities beforehand, each good for its address, too."""
    authority = pki.create_authority(data / "pki")
    for name, address in addresses.items():
        if name != WORKSTATION:
            role: pki.Role = "gateway" if name == "gateway" else "node"
            pki.issue(authority, data / "pki" / name, name=name, role=role, hosts=sorted({*pki.LOCAL_HOSTS, address}))


def spread(data: Path, addresses: dict[str, str]) -> None:
    """Put each part to its address."""
    gateway = _read(data / "gateway/gateway.toml")
    there = addresses["gateway"]
    changed = {key: join(there, port_of(gateway[key])) for key in ("listen", "heartbeat_listen")}
    _write(data / "gateway/gateway.toml", gateway | changed)
    url = f"https://{changed['listen']}"
    for config in data.glob("nodes/*/node.toml"):
        node = _read(config)
        listen = join(addresses[config.parent.name], port_of(node["listen"]))
        more = {"listen": listen, "advertise": listen, "gateway": url, "heartbeat": changed["heartbeat_listen"]}
        _write(config, node | more)
    for role, name in ((WORKSTATION, "credentials.json"), ("administrator", "administrator.json")):
        credentials.save(credentials.from_identity(url, data / "pki" / role), data / name)


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def _write(path: Path, table: dict[str, Any]) -> None:
    path.write_text(layout.to_toml(table))
