"""The pool file: TOML into frozen settings, every mistake named with its key, and no secret in it.

The password comes from a file or from an environment variable that the file names, is read when it is used, and is
never printed. Refuses to do: connecting, checking what only the pool can know (`xen.room`).
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from transfer import settings
from transfer.errors import SettingsError
from xen.wanted import NUMBER_MAX, Wanted

MIB: Final = 1 << 20
Count = Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Seconds = Annotated[float, Meta(ge=0.1, le=86_400)]
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9-])?")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file."""


class XenApiTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[xenapi]`: the pool's coordinator (any member does: it says who is), and how to log in there.

    `others`: further members, asked when the coordinator is gone. `certificates`: a PEM file of what to trust.
    `ha_priority`: what the pool's high availability does with nodes of a host that fails ('' leaves it alone).
    """

    coordinator: Text
    others: list[Text] = []
    user: Text = "root"
    password_file: str = ""
    password_env: str = ""
    certificates: str = ""
    ha_priority: Literal["", "best-effort", "restart"] = ""
    call_timeout_s: Seconds = 60.0
    task_timeout_s: Seconds = 1800.0
    fail_over_s: Seconds = 180.0


class LibvirtTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[libvirt]`: one URI for each host, such as `qemu+ssh://host/system` or `xen:///system`."""

    uris: Annotated[list[Text], Meta(min_length=1, max_length=256)]
    state: str = ""


class NodesTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[nodes]`: how many, from what, of which shape (S2: 1 vCPU, 1 GB of memory, 3 GB of disk)."""

    count: Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
    prefix: str = "node-"
    template: Text
    storage: Text
    network: Text
    vcpus: Annotated[int, Meta(ge=1, le=256)] = 1
    memory_mib: Annotated[int, Meta(ge=256, le=1 << 24)] = 1024
    disk_mib: Annotated[int, Meta(ge=512, le=1 << 28)] = 3072
    full_copy: bool = False
    revision: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = ""
    port: Annotated[int, Meta(ge=1, le=65_535)] = 9001


class AddressesTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[addresses]`: what others reach the nodes by; their certificates are made out to it.

    `domain`: DHCP and DNS, the node is NAME.DOMAIN. `first` (CIDR): node 1 has this address, node 2 the next.
    """

    domain: str = ""
    first: str = ""
    router: str = ""
    name_servers: list[str] = []


class SpreadTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[spread]`: nodes go to the host that has fewest, and never more than `per_host_max` to one; 0: no limit."""

    per_host_max: Annotated[int, Meta(ge=0, le=NUMBER_MAX)] = 0


class GrowthTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[growth]`: with less than `free_share_min` of the nodes' room free, the reconciler makes more, up to `count_max`
    nodes in all; 0: never.
    """

    count_max: Annotated[int, Meta(ge=0, le=NUMBER_MAX)] = 0
    free_share_min: Annotated[float, Meta(gt=0, lt=1)] = 0.15


class WatchTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[watch]`: times, in seconds, how much is done side by side, and where the reconciler's metrics are."""

    grace_s: Seconds = 600.0
    every_s: Seconds = 15.0
    address_timeout_s: Seconds = 300.0
    enrol_timeout_s: Seconds = 600.0
    drain_timeout_s: Annotated[float, Meta(ge=0.1, le=30 * 86_400)] = 86_400.0
    shut_down_timeout_s: Seconds = 60.0
    lock_wait_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    lanes: Annotated[int, Meta(ge=1, le=64)] = 8
    metrics_listen: str = ""


class PoolFile(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. `cluster` marks what is ours at the pool; `administrator` is a gateway's credentials file."""

    cluster: str
    administrator: Text
    nodes: NodesTable
    addresses: AddressesTable
    xenapi: XenApiTable | None = None
    libvirt: LibvirtTable | None = None
    spread: SpreadTable = msgspec.field(default_factory=SpreadTable)
    growth: GrowthTable = msgspec.field(default_factory=GrowthTable)
    watch: WatchTable = msgspec.field(default_factory=WatchTable)

    @property
    def back_end(self) -> Literal["xenapi", "libvirt"]:
        """Which of the two tables is there."""
        return "xenapi" if self.xenapi is not None else "libvirt"

    def wanted(self) -> Wanted:
        """Return what is wanted, for planning."""
        nodes = self.nodes
        return Wanted(
            cluster=self.cluster,
            count=nodes.count,
            prefix=nodes.prefix,
            template=nodes.template,
            storage=nodes.storage,
            network=nodes.network,
            vcpus=nodes.vcpus,
            memory_bytes=nodes.memory_mib * MIB,
            disk_bytes=nodes.disk_mib * MIB,
            full_copy=nodes.full_copy,
            per_host_max=self.spread.per_host_max,
            grace_s=self.watch.grace_s,
            revision=nodes.revision,
        )

    def address(self, number: int) -> str:
        """Return the node's address in CIDR form; '' with DHCP.

        Raises:
            SettingsError: it would be beyond the network; a node that replaces another has a higher number for a while.
        """
        if not self.addresses.first:
            return ""
        first = ipaddress.ip_interface(self.addresses.first)
        if not _has_address(first, number):
            raise SettingsError(
                f"`addresses.first`: node {number} from {first.ip} on would be beyond {first.network}, which has no "
                "address left for nodes that replace others; it must be larger"
            )
        return f"{first.ip + (number - 1)}/{first.network.prefixlen}"

    def host(self, number: int) -> str:
        """Return what others reach the node by: its name in DNS, else its address."""
        if self.addresses.domain:
            return f"{self.wanted().name(number)}.{self.addresses.domain}"
        return self.address(number).partition("/")[0]


def load(path: Path, environment: Mapping[str, str] = os.environ) -> PoolFile:
    """Read and check a pool file; paths in it are relative to it.

    Raises:
        SettingsError: what is wrong, with its key.
    """
    return _checked(settings.load(PoolFile, path, environment), path)


def with_count(file: PoolFile, count: int, path: Path) -> PoolFile:
    """Return the file as it would be with another number of nodes.

    Raises:
        SettingsError: the number does not fit the rest of it.
    """
    replace = msgspec.structs.replace
    return _checked(replace(file, nodes=replace(file.nodes, count=count)), path)


def _checked(read: PoolFile, path: Path) -> PoolFile:
    for problem in _problems(read):
        raise SettingsError(f"{path}: {problem}")
    return read


def beside(path: Path, name: str) -> Path:
    """Return the path of a file that the pool file at `path` names."""
    return path.resolve().parent / Path(name).expanduser()


def password(table: XenApiTable, folder: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Return the pool's password, out of the file or the variable that the table names.

    Raises:
        SettingsError: it is not there, or others may read the file.
    """
    if table.password_env:
        if not environment.get(table.password_env):
            raise SettingsError(f"`xenapi.password_env`: the variable {table.password_env} is not set")
        return environment[table.password_env]
    path = folder / Path(table.password_file).expanduser()
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"`xenapi.password_file`: {path} can be read by others; chmod 600 it")
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"`xenapi.password_file`: {path} cannot be read: {error}") from error
    if not text:
        raise SettingsError(f"`xenapi.password_file`: {path} is empty")
    return text


def _problems(read: PoolFile) -> list[str]:
    found = [
        *_back_end_problems(read),
        *(f"`{key}`: {text!r} is not a name: a-z, 0-9 and hyphens" for key, text in _names(read) if not _is_name(text)),
        *_growth_problems(read),
        *_address_problems(read.addresses, max(read.nodes.count, read.growth.count_max)),
    ]
    if read.xenapi is not None:
        found += _xenapi_problems(read.xenapi)
    return found


def _names(read: PoolFile) -> list[tuple[str, str]]:
    return [("cluster", read.cluster), ("nodes.prefix", read.nodes.prefix)]


def _is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None


def _back_end_problems(read: PoolFile) -> list[str]:
    if (read.xenapi is None) == (read.libvirt is None):
        return ["exactly one of the tables `[xenapi]` and `[libvirt]` says where the machines are made"]
    return []


def _growth_problems(read: PoolFile) -> list[str]:
    most, count = read.growth.count_max, read.nodes.count
    if 0 < most < count:
        return [f"`growth.count_max`: {most} is fewer than the {count} of `nodes.count`"]
    return []


def _xenapi_problems(table: XenApiTable) -> list[str]:
    found = []
    for key, url in [("coordinator", table.coordinator), *(("others", each) for each in table.others)]:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            found.append(f"`xenapi.{key}`: {url!r} is not https://HOST; the password travels there")
        elif parts.username or parts.password:
            found.append(f"`xenapi.{key}`: no user or password in the address; use `user` and `password_file`")
    if bool(table.password_file) == bool(table.password_env):
        found.append("`xenapi`: exactly one of `password_file` and `password_env` says where the password is")
    return found


def _address_problems(table: AddressesTable, count: int) -> list[str]:
    if not table.domain and not table.first:
        return [
            "`addresses`: say `domain` (DHCP and DNS: NAME.DOMAIN) or `first` (the address of node 1, as 10.0.0.11/24)"
        ]
    if table.domain and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,180}[a-z0-9])?", table.domain):
        return [f"`addresses.domain`: {table.domain!r} is not a DNS domain"]
    if table.first:
        try:
            first = ipaddress.ip_interface(table.first)
        except ValueError as error:
            return [f"`addresses.first`: {error}"]
        if not _has_address(first, max(1, count)):
            return [f"`addresses.first`: {count} nodes from {first.ip} on go beyond {first.network}"]
    for key, text in [("router", table.router), *(("name_servers", each) for each in table.name_servers)]:
        try:
            ipaddress.ip_address(text or "::")
        except ValueError as error:
            return [f"`addresses.{key}`: {error}"]
    return []


def _has_address(first: ipaddress.IPv4Interface | ipaddress.IPv6Interface, number: int) -> bool:
    """Tell whether node `number` has an address in the network of the first, which is not the one for broadcasts.

    A host's own prefix says nothing of the others.
    """
    network = first.network
    if network.prefixlen == network.max_prefixlen:
        return int(first.ip) + number <= 1 << network.max_prefixlen
    kept = network.version == 4 and network.prefixlen < network.max_prefixlen - 1
    return int(first.ip) + number - 1 <= int(network.broadcast_address) - kept
