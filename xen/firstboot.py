"""The first-boot drive: what a machine must hear to become a node of this cluster, as cloud-init's NoCloud data source.

    volume `cidata` (ISO 9660 with Rock Ridge and Joliet)
        meta-data        instance-id, local-hostname
        user-data        #cloud-config: writes the token, enrols, starts the node, removes the token
        network-config   version 2, only where the pool file gives addresses

Files are JSON, which is YAML too. The image must have cloud-init, the `fascicle` command and the unit `fascicle-node`
(docs/xen.md). The token is good once and for minutes; it is the only secret here. Refuses to do: asking for the token.
"""

import io
import json
import shlex
from typing import Any, Final

import msgspec

from transfer.errors import UnreachableError

VOLUME: Final = "cidata"
TOKEN_FILE: Final = "/etc/fascicle/token"  # noqa: S105  # a path
DATA: Final = "/var/lib/fascicle"
TRIES, PAUSE_S = 60, 10
# All Ethernet cards, of which a node has one. It is the key, too: cloud-init's writer for systemd-networkd looks there.
CARDS: Final = "e*"


class FirstBoot(msgspec.Struct, frozen=True, kw_only=True):
    """What one machine is told. `address` is CIDR, '' for DHCP; `host` is what others reach the node by."""

    name: str
    token: str
    host: str
    port: int
    failure_domain: str
    address: str = ""
    router: str = ""
    name_servers: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"FirstBoot(name={self.name!r}, host={self.host!r})"


def files(boot: FirstBoot) -> dict[str, str]:
    """Return the drive's files by name."""
    made = {
        "meta-data": json.dumps({"instance-id": boot.name, "local-hostname": boot.name}),
        "user-data": "#cloud-config\n" + json.dumps(_user_data(boot), indent=1),
    }
    if boot.address:
        made["network-config"] = json.dumps(_network(boot), indent=1)
    return made


def image(boot: FirstBoot) -> bytes:
    """Return the drive as an ISO 9660 image."""
    from pycdlib import PyCdlib  # noqa: PLC0415  # of the extra `xen`: `xen.opening` says so where it is missing

    disc = PyCdlib()
    disc.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME)
    for index, (name, text) in enumerate(files(boot).items()):
        body = text.encode()
        disc.add_fp(io.BytesIO(body), len(body), f"/F{index}.;1", rr_name=name, joliet_path=f"/{name}")
    out = io.BytesIO()
    disc.write_fp(out)
    disc.close()
    return out.getvalue()


def join(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _user_data(boot: FirstBoot) -> dict[str, Any]:
    enrol = [
        "fascicle enroll",
        f'--token "$(cat {TOKEN_FILE})"',
        f"--data {DATA} --listen 0.0.0.0:{boot.port}",
        f"--advertise {shlex.quote(join(boot.host, boot.port))} --failure-domain {shlex.quote(boot.failure_domain)}",
    ]
    return {
        "hostname": boot.name,
        "preserve_hostname": False,
        "growpart": {"mode": "auto", "devices": ["/"]},
        "write_files": [{"path": TOKEN_FILE, "content": boot.token, "permissions": "0600"}],
        "runcmd": [
            [
                "sh",
                "-c",
                f"{_patiently(' '.join(enrol))} && rm -f {TOKEN_FILE} && systemctl enable --now fascicle-node",
            ],
        ],
    }


def _patiently(command: str) -> str:
    """Return a shell command that is run again while the gateway does not answer: the network may come up later."""
    again = f"[ $code -eq {UnreachableError.exit_code} ] && [ $tries -lt {TRIES} ] || exit $code; sleep {PAUSE_S}"
    return f"tries=0\nuntil {command}\ndo code=$?; tries=$((tries + 1)); {again}\ndone"


def _network(boot: FirstBoot) -> dict[str, Any]:
    card: dict[str, Any] = {"match": {"name": CARDS}, "dhcp4": False, "addresses": [boot.address]}
    if boot.router:
        card["routes"] = [{"to": "default", "via": boot.router}]
    if boot.name_servers:
        card["nameservers"] = {"addresses": list(boot.name_servers)}
    return {"version": 2, "ethernets": {CARDS: card}}
