"""What a gateway is told by its configuration file; read once at start (`transfer.settings`).

The identity folder and the data folder are taken relative to the working directory of the process. Refuses to do:
opening anything, defaults that listen on all interfaces.
"""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from transfer import addresses
from transfer.errors import SettingsError
from transfer.protocol.messages import NodeId
from transfer.tickets import LIFETIME_S

PublicKeyHex = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}$")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node that belongs to this cluster, and the key by which it signs receipts and heartbeats.

    `draining`: it gets no new objects, and what it holds is copied to others so that it may be taken away.
    """

    node_id: NodeId
    public_key: PublicKeyHex
    draining: bool = False


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gateway.

    `listen` is HTTPS, `heartbeat_listen` UDP, both `host:port`; `plain` says that nodes are reached without TLS.
    `authority` is the folder of `ca.pem` and `ca.key.pem`; without it this gateway enrols and renews nobody.
    """

    gateway_id: NodeId
    data: str
    identity: str
    authority: str = ""
    listen: str
    heartbeat_listen: str
    plain: bool = False
    node: list[NodeEntry] = []
    silent_after_s: Seconds = 10.0  # four heartbeats missed in a row, and room for a slow start
    reserve_bytes: Annotated[int, Meta(ge=0)] = 64 << 20  # stays free: transfers under way commit, none is opened
    replica_grace_s: Annotated[float, Meta(ge=0, le=30 * 86_400)] = 900.0  # of a silent node, before others copy
    repair_every_s: Seconds = 30.0  # between looks for what is short, while something is
    stocktake_every_s: Annotated[float, Meta(ge=0.1, le=366 * 86_400)] = 86_400.0
    repair_bytes_per_s: Annotated[int, Meta(ge=1 << 10, le=1 << 40)] = 64 << 20
    upkeep_every_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    upkeep_bytes_per_s: Annotated[int, Meta(ge=1 << 10, le=1 << 40)] = (
        16 << 20
    )  # moved, and read again to let others go
    calm_s: Annotated[float, Meta(ge=0, le=366 * 86_400)] = 3600.0  # nothing short and all nodes heard, before tidying
    trash_s: Annotated[float, Meta(ge=0, le=366 * 86_400)] = 7 * 86_400.0
    orphan_grace_s: Annotated[float, Meta(ge=0, le=366 * 86_400)] = 7 * 86_400.0
    orphan_share_max: Annotated[float, Meta(ge=0, le=1)] = 0.01  # of all copies; beyond, somebody has to say so
    transfer_idle_s: Annotated[float, Meta(gt=0, le=366 * 86_400)] = 30 * 86_400.0
    balance_spread: Annotated[float, Meta(gt=0, le=1)] = 0.1  # between the fullest node and the emptiest
    reserve_timeout_s: Seconds = 2.0
    check_timeout_s: Seconds = 10.0
    list_timeout_s: Seconds = 30.0
    ticket_lifetime_s: Annotated[float, Meta(gt=0, le=LIFETIME_S)] = LIFETIME_S
    default_replicas: Annotated[int, Meta(ge=1, le=16)] = 1  # of a sender that says nothing
    transfer_nodes_max: Annotated[int, Meta(ge=1, le=1024)] = 32
    transfers_open_max: Annotated[int, Meta(ge=1, le=100_000)] = 1000  # of one sender; beyond, its oldest are abandoned
    request_bytes_max: Annotated[int, Meta(ge=1 << 16, le=1 << 30)] = 16 << 20
    header_bytes_max: Annotated[int, Meta(ge=1 << 10, le=1 << 20)] = 32 << 10
    header_timeout_s: Seconds = 20.0
    body_timeout_s: Seconds = 120.0  # 16 MiB at 1.1 Mb/s
    keep_alive_s: Seconds = 75.0
    connections_max: Annotated[int, Meta(ge=1, le=100_000)] = 1024  # of those who showed a certificate
    party_connections_max: Annotated[int, Meta(ge=1, le=100_000)] = 128  # of one of them
    strangers_max: Annotated[int, Meta(ge=1, le=100_000)] = 512  # connections of those who did not, or not yet
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Refuse what would only be noticed later."""
        ids = [entry.node_id for entry in self.node]
        if len(set(ids)) != len(ids):
            raise ValueError("`node` names one node_id more than once")
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise ValueError("`log_level` must be debug, info, warning or error")
        for key in ("listen", "heartbeat_listen"):
            try:
                addresses.parse(getattr(self, key))
            except SettingsError as error:
                raise ValueError(f"`{key}`: {error.message}") from error

    @property
    def database(self) -> Path:
        """The catalogue's file."""
        return Path(self.data) / "catalogue.db"
